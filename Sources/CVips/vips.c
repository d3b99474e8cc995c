// libvips is loaded when the first picture comes, and not with the program: it brings a hundred libraries, which cost 20 MB
// of memory and a twentieth of a second at each start, also on servers where nobody ever sends a picture. So there are no
// headers of it here either; what is declared has been stable since libvips 8.13 (its soname 42).

#include "CVips.h"

#include <dlfcn.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <string.h>

typedef struct _VipsImage VipsImage;
typedef struct _VipsSource VipsSource;

static struct {
    int (*init)(const char *);
    int (*version)(int);
    void (*block_untrusted_set)(int);
    void (*operation_block_set)(const char *, int);
    void (*concurrency_set)(int);
    void (*cache_set_max)(int);
    void (*cache_set_max_mem)(size_t);
    VipsSource *(*source_new_from_file)(const char *);
    VipsImage *(*image_new_from_source)(VipsSource *, const char *, ...);
    int (*image_get_width)(const VipsImage *);
    int (*image_get_height)(const VipsImage *);
    int (*image_hasalpha)(VipsImage *);
    int (*image_remove)(VipsImage *, const char *);
    int (*thumbnail_source)(VipsSource *, VipsImage **, int, ...);
    int (*jpegsave_buffer)(VipsImage *, void **, size_t *, ...);
    int (*pngsave_buffer)(VipsImage *, void **, size_t *, ...);
    int (*webpsave_buffer)(VipsImage *, void **, size_t *, ...);
    void (*error_clear)(void);
    void (*object_unref)(void *);
    void (*free)(void *);
    unsigned (*log_set_handler)(const char *, int, void (*)(const char *, int, const char *, void *), void *);
} vips;

/// Values of VipsInteresting and VipsSize.
enum { interesting_none = 0, interesting_centre = 1, size_down = 2 };

static void keep_quiet(const char *domain, int level, const char *message, void *context) {
    // What libvips has to say is about a stranger's file, in the stranger's words.
    (void)domain, (void)level, (void)message, (void)context;
}

static int find(void *library, const char *name, void *place) {
    void *found = dlsym(library, name);
    memcpy(place, &found, sizeof found);
    return found != NULL;
}

int cvips_start(void) {
    static int state = -1;
    if (state >= 0) return state;
    state = cvips_unavailable;
    void *library = dlopen("libvips.so.42", RTLD_NOW | RTLD_LOCAL);
    if (!library) return state;
    int found = find(library, "vips_init", &vips.init) && find(library, "vips_version", &vips.version)
        && find(library, "vips_block_untrusted_set", &vips.block_untrusted_set)
        && find(library, "vips_operation_block_set", &vips.operation_block_set)
        && find(library, "vips_concurrency_set", &vips.concurrency_set)
        && find(library, "vips_cache_set_max", &vips.cache_set_max)
        && find(library, "vips_cache_set_max_mem", &vips.cache_set_max_mem)
        && find(library, "vips_source_new_from_file", &vips.source_new_from_file)
        && find(library, "vips_image_new_from_source", &vips.image_new_from_source)
        && find(library, "vips_image_get_width", &vips.image_get_width)
        && find(library, "vips_image_get_height", &vips.image_get_height)
        && find(library, "vips_image_hasalpha", &vips.image_hasalpha)
        && find(library, "vips_image_remove", &vips.image_remove)
        && find(library, "vips_thumbnail_source", &vips.thumbnail_source)
        && find(library, "vips_jpegsave_buffer", &vips.jpegsave_buffer)
        && find(library, "vips_pngsave_buffer", &vips.pngsave_buffer)
        && find(library, "vips_webpsave_buffer", &vips.webpsave_buffer)
        && find(library, "vips_error_clear", &vips.error_clear) && find(library, "g_object_unref", &vips.object_unref)
        && find(library, "g_free", &vips.free) && find(library, "g_log_set_handler", &vips.log_set_handler);
    if (!found || vips.init("roost") != 0) return state;
    vips.log_set_handler("VIPS", 0xff << 2, keep_quiet, NULL);
    vips.block_untrusted_set(1);
    // Of the loaders that libvips trusts, only those whose headers have been looked at before.
    vips.operation_block_set("VipsForeignLoad", 1);
    vips.operation_block_set("VipsForeignLoadPng", 0);
    vips.operation_block_set("VipsForeignLoadJpeg", 0);
    vips.operation_block_set("VipsForeignLoadNsgif", 0);
    vips.operation_block_set("VipsForeignLoadWebp", 0);
    // The threads are those of our pool, and results are kept by us.
    vips.concurrency_set(1);
    vips.cache_set_max(0);
    vips.cache_set_max_mem(0);
    state = cvips_done;
    return state;
}

/// Whether the picture is as small as was said; reads its header alone.
static int is_small(VipsSource *source, const char *options, long long most_pixels) {
    VipsImage *image = vips.image_new_from_source(source, options, "access", 1, NULL);
    if (!image) return 0;
    long long pixels = (long long)vips.image_get_width(image) * vips.image_get_height(image);
    vips.object_unref(image);
    return pixels <= most_pixels;
}

static int save(VipsImage *image, int animates, cvips_picture *picture) {
    // Where and with what a photograph was taken is nobody's business; not every saver leaves it out by itself.
    vips.image_remove(image, "exif-data");
    vips.image_remove(image, "xmp-data");
    vips.image_remove(image, "iptc-data");
    vips.image_remove(image, "icc-profile-data");
    if (animates) {
        picture->format = cvips_webp;
        return vips.webpsave_buffer(image, &picture->bytes, &picture->size, "Q", 75, "effort", 2, "strip", 1, NULL);
    }
    if (vips.image_hasalpha(image)) {
        picture->format = cvips_png;
        return vips.pngsave_buffer(image, &picture->bytes, &picture->size, "strip", 1, NULL);
    }
    picture->format = cvips_jpeg;
    return vips.jpegsave_buffer(
        image, &picture->bytes, &picture->size, "Q", 80, "optimize_coding", 1, "strip", 1, NULL);
}

int cvips_thumbnail(const cvips_request *request, cvips_picture *picture) {
    *picture = (cvips_picture){NULL, 0, 0};
    const char *options = request->animates ? "[n=-1,fail_on=error]" : "[fail_on=error]";
    // Cropping moves the pages of an animation against each other.
    int crops = request->crops && !request->animates;
    VipsSource *source = vips.source_new_from_file(request->path);
    VipsImage *image = NULL;
    int result = source && is_small(source, options, request->most_pixels) ? cvips_done : cvips_refused;
    if (result == cvips_done) {
        int failed = vips.thumbnail_source(
            source, &image, request->width, "height", request->height, "size", size_down, "crop",
            crops ? interesting_centre : interesting_none, "option_string", options, "export_profile", "srgb", NULL);
        if (failed || save(image, request->animates, picture)) result = cvips_refused;
    }
    if (image) vips.object_unref(image);
    if (source) vips.object_unref(source);
#ifdef __GLIBC__
    // A large picture leaves its memory with the allocator, where nobody else needs so much.
    malloc_trim(0);
#endif
    if (result != cvips_done) {
        vips.error_clear();
        cvips_free(picture);
    }
    return result;
}

void cvips_free(cvips_picture *picture) {
    if (picture->bytes) vips.free(picture->bytes);
    picture->bytes = NULL;
}
