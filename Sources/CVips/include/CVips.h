#ifndef ROOST_CVIPS_H
#define ROOST_CVIPS_H

#include <stddef.h>

/// What became of a picture.
enum {
    cvips_done = 0,
    /// libvips is not on this machine, or lacks something that is needed.
    cvips_unavailable = 1,
    /// The picture is broken, of a kind that is not decoded, or larger than was said.
    cvips_refused = 2,
};

/// The format of a thumbnail.
enum { cvips_jpeg = 0, cvips_png = 1, cvips_webp = 2 };

typedef struct {
    const char *path;
    /// The box of the thumbnail.
    int width, height;
    /// Whether the picture fills the box and what stands out is cut off; animations are never cut.
    int crops;
    /// Whether all pages are taken and not only the first.
    int animates;
    /// The most pixels of all pages together.
    long long most_pixels;
} cvips_request;

typedef struct {
    /// To be freed by cvips_free.
    void *bytes;
    size_t size;
    int format;
} cvips_picture;

/// Loads libvips, when it is asked for first. Not to be called by two threads at a time.
///
/// Returns cvips_done or cvips_unavailable.
int cvips_start(void);

/// Makes a thumbnail. May be called by several threads at a time once cvips_start has succeeded.
///
/// Returns cvips_done or cvips_refused.
int cvips_thumbnail(const cvips_request *request, cvips_picture *picture);

void cvips_free(cvips_picture *picture);

#endif
