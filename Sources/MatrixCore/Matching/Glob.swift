/// A glob: `*` stands for zero or more characters, `?` for exactly one (Appendices, Glob-style matching).
///
/// Matched without backtracking: all ways in which the pattern can have matched so far are the bits of a set that each
/// character of the text moves on at once. The time is the length of the text times the length of the pattern by 64, whatever
/// the two look like. Characters are Unicode scalars; case is ignored.
public struct Glob: Sendable {
    /// Longer patterns never match: together with the size limit of events this bounds one match to about a million
    /// steps. Nothing that people write comes near.
    public static let maxLength = 1_024

    /// How much of the text has to match.
    public enum Extent: Sendable {
        case whole
        /// Any part that begins and ends at a word boundary: the start or end of the text, or a character other than
        /// `A-Z a-z 0-9 _` (Client-Server API, Push Rules, `event_match`).
        case words
    }

    /// Bit i of a word: the pattern's i-th character accepts this scalar. Stars are no characters.
    private var accepting: [UInt32: [UInt64]] = [:]
    /// The characters that accept anything: the question marks.
    private var acceptingAny: [UInt64]
    /// Bit i: a star stands before the i-th character (or behind the last).
    private var stars: [UInt64]
    private let wordCount: Int
    private let length: Int
    private let isTooLong: Bool

    public init(_ pattern: String) { self.init(pattern, isLiteral: false) }

    /// A pattern in which `*` and `?` stand for themselves.
    public init(literal: String) { self.init(literal, isLiteral: true) }

    private init(_ pattern: String, isLiteral: Bool) {
        let scalars = Array(pattern.prefixForMatching(Self.maxLength + 1).lowercased().unicodeScalars)
        isTooLong = pattern.unicodeScalars.count > Self.maxLength
        var characters: [UInt32?] = []
        var starPositions: [Int] = []
        for scalar in isTooLong ? [] : scalars {
            switch scalar {
            case "*" where !isLiteral: starPositions.append(characters.count)
            case "?" where !isLiteral: characters.append(nil)
            default: characters.append(scalar.value)
            }
        }
        length = characters.count
        wordCount = length / 64 + 1
        acceptingAny = Array(repeating: 0, count: wordCount)
        stars = acceptingAny
        for position in starPositions { stars[position / 64] |= 1 << UInt64(position % 64) }
        for (position, character) in characters.enumerated() where character == nil {
            acceptingAny[position / 64] |= 1 << UInt64(position % 64)
        }
        for (position, character) in characters.enumerated() {
            if let character {
                accepting[character, default: acceptingAny][position / 64] |= 1 << UInt64(position % 64)
            }
        }
    }

    /// About what it takes in memory: a set of places for each different character.
    public var compiledBytes: Int { 128 + (accepting.count + 2) * (48 + 8 * wordCount) }

    public func matches(_ text: String, _ extent: Extent = .whole) -> Bool {
        if isTooLong { return false }
        return wordCount == 1 ? matchesShort(text, extent) : matchesLong(text, extent)
    }

    /// Patterns of up to 63 characters: the set is one machine word.
    private func matchesShort(_ text: String, _ extent: Extent) -> Bool {
        let any = acceptingAny[0]
        let stars = stars[0]
        let final: UInt64 = 1 << UInt64(length)
        let inWords = extent == .words
        var states: UInt64 = 1
        var previousIsWord = false
        for scalar in text.lowercased().unicodeScalars {
            if inWords {
                let isWord = Self.isWordCharacter(scalar)
                // A boundary lies between two characters unless both belong to words.
                if !(previousIsWord && isWord) {
                    if states & final != 0 { return true }
                    states |= 1
                }
                previousIsWord = isWord
            }
            let accepted = accepting[scalar.value]?[0] ?? any
            states = (states & accepted) << 1 | states & stars
            if states == 0, !inWords { return false }
        }
        return states & final != 0
    }

    private func matchesLong(_ text: String, _ extent: Extent) -> Bool {
        let finalWord = length / 64
        let finalBit: UInt64 = 1 << UInt64(length % 64)
        let inWords = extent == .words
        var states = [UInt64](repeating: 0, count: wordCount)
        states[0] = 1
        var previousIsWord = false
        for scalar in text.lowercased().unicodeScalars {
            if inWords {
                let isWord = Self.isWordCharacter(scalar)
                if !(previousIsWord && isWord) {
                    if states[finalWord] & finalBit != 0 { return true }
                    states[0] |= 1
                }
                previousIsWord = isWord
            }
            let accepted = accepting[scalar.value] ?? acceptingAny
            var carry: UInt64 = 0
            for word in 0..<wordCount {
                let moved = states[word] & accepted[word]
                states[word] = moved << 1 | carry | states[word] & stars[word]
                carry = moved >> 63
            }
        }
        return states[finalWord] & finalBit != 0
    }

    private static func isWordCharacter(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar {
        case "a"..."z", "A"..."Z", "0"..."9", "_": true
        default: false
        }
    }
}

extension String {
    /// At most `count` scalars, so that a long pattern isn't folded before it is refused.
    fileprivate func prefixForMatching(_ count: Int) -> String {
        String(String.UnicodeScalarView(unicodeScalars.prefix(count)))
    }
}
