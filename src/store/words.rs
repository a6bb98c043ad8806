//! The different words of a text; what a word is stands in [`super::text`].

/// UUIDs have parts of at most 12 bytes, trace ids 32; longer runs are tokens and base64, which nobody types.
pub(super) const MAX_WORD_BYTES: usize = 64;

/// Places of a first hash table: most events have fewer than 64 words.
const FIRST_TABLE: usize = 128;

/// Words of one event; a body is bounded by `traces.bodyBytes`, other programs' events by nothing.
pub(super) const MAX_WORDS: usize = 65_536;

/// Different words, in order of appearance. Every stored event goes through here, so no word is allocated by itself.
pub(super) struct Words {
    /// The words, a space between two.
    pub text: String,
    /// Where each begins and ends in `text`.
    places: Vec<(u32, u32)>,
    /// A hash table of the words: their places' numbers and one, 0 for none. Its length is a power of two.
    table: Vec<u32>,
    /// Of this process, so that nobody can choose words that collide.
    seed: u64,
}

impl Default for Words {
    fn default() -> Self {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8) | 1;
        Self { text: String::new(), places: Vec::new(), table: Vec::new(), seed }
    }
}

impl Words {
    pub fn clear(&mut self) {
        self.text.clear();
        self.places.clear();
        self.table.truncate(FIRST_TABLE);
        self.table.fill(0);
    }

    pub fn count(&self) -> usize {
        self.places.len()
    }

    pub fn list(&self) -> impl Iterator<Item = &str> {
        self.places.iter().map(|place| self.at(*place))
    }

    fn at(&self, (from, to): (u32, u32)) -> &str {
        self.text.get(from as usize..to as usize).unwrap_or_default()
    }

    pub fn add(&mut self, text: &str) {
        let mut from = self.begin();
        let mut left = text;
        while let Some(&first) = left.as_bytes().first() {
            // nearly all is ASCII, where a run of letters is taken as a whole
            if first.is_ascii() {
                let run = run_of(left, IS_LETTER[usize::from(first)]);
                let (letters, rest) = left.split_at(run);
                left = rest;
                if IS_LETTER[usize::from(first)] {
                    self.extend(from, letters);
                } else {
                    from = self.end(from);
                }
                continue;
            }
            let Some(letter) = left.chars().next() else { break };
            left = &left[letter.len_utf8()..];
            if !letter.is_alphanumeric() {
                from = self.end(from);
            } else if stands_alone(letter) {
                from = self.end(from);
                self.text.push(letter);
                from = self.end(from);
            } else {
                for lower in letter.to_lowercase() {
                    // lower case may bring marks that are no letters: `İ` is `i` and a dot
                    if lower.is_alphanumeric() && self.text.len() - from + lower.len_utf8() <= MAX_WORD_BYTES {
                        self.text.push(lower);
                    }
                }
            }
        }
        self.end(from);
        if self.text.ends_with(' ') {
            self.text.pop();
        }
    }

    /// Adds ASCII letters to the word that began at `from`, as many as it may have.
    fn extend(&mut self, from: usize, letters: &str) {
        let begin = self.text.len();
        let room = MAX_WORD_BYTES.saturating_sub(begin - from);
        self.text.push_str(&letters[..letters.len().min(room)]);
        self.text[begin..].make_ascii_lowercase();
    }

    /// Where the next word will begin.
    fn begin(&mut self) -> usize {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.len()
    }

    /// Keeps what stands behind `from` as a word if it is a new one, and begins the next.
    fn end(&mut self, from: usize) -> usize {
        let to = self.text.len();
        if to == from {
            return from;
        }
        let (Ok(first), Ok(last)) = (u32::try_from(from), u32::try_from(to)) else { return from };
        if self.count() >= MAX_WORDS || !self.is_new((first, last)) {
            self.text.truncate(from);
            return from;
        }
        self.text.push(' ');
        to + 1
    }

    fn is_new(&mut self, place: (u32, u32)) -> bool {
        if self.table.len() < 2 * (self.count() + 1) {
            self.table = vec![0; (4 * (self.count() + 1)).next_power_of_two().max(FIRST_TABLE)];
            for number in 0..self.count() {
                let slot = self.slot(self.places[number]);
                self.table[slot] = number as u32 + 1;
            }
        }
        let slot = self.slot(place);
        if self.table[slot] != 0 {
            return false;
        }
        self.places.push(place);
        self.table[slot] = self.count() as u32;
        true
    }

    /// Where the table has this word, or has room for it.
    fn slot(&self, place: (u32, u32)) -> usize {
        let word = self.at(place);
        let mask = self.table.len() - 1;
        let mut slot = self.hash(word.as_bytes()) as usize & mask;
        loop {
            match self.table[slot] {
                0 => return slot,
                number if self.at(self.places[number as usize - 1]) == word => return slot,
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    /// Multiplies eight bytes at a time into 128 bits and folds them, as wyhash does (<https://github.com/wangyi-fudan/wyhash>).
    fn hash(&self, word: &[u8]) -> u64 {
        let mut hash = self.seed ^ word.len() as u64;
        for chunk in word.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            let product = u128::from(hash ^ u64::from_le_bytes(bytes)) * u128::from(self.seed.rotate_left(32) | 1);
            hash = (product as u64) ^ ((product >> 64) as u64);
        }
        hash
    }
}

/// ASCII letters and digits, by byte.
static IS_LETTER: [bool; 256] = {
    let mut is = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        is[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    is
};

/// How many bytes at the begin of `text`, which begins so, are ASCII letters, or ASCII and none.
fn run_of(text: &str, are_letters: bool) -> usize {
    let is_other = |byte: &u8| !byte.is_ascii() || IS_LETTER[usize::from(*byte)] != are_letters;
    text.as_bytes().iter().position(is_other).unwrap_or(text.len())
}

/// Han, Hiragana and Katakana (Unicode blocks).
fn stands_alone(letter: char) -> bool {
    matches!(u32::from(letter), 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same, letter by letter.
    fn one_by_one(text: &str) -> Vec<String> {
        let mut words: Vec<String> = vec![String::new()];
        for letter in text.chars() {
            if !letter.is_alphanumeric() || stands_alone(letter) {
                words.push(String::new());
            }
            if letter.is_alphanumeric() {
                let word = words.last_mut().unwrap();
                for lower in letter.to_lowercase().filter(|lower| lower.is_alphanumeric()) {
                    if word.len() + lower.len_utf8() <= MAX_WORD_BYTES {
                        word.push(lower);
                    }
                }
            }
            if stands_alone(letter) {
                words.push(String::new());
            }
        }
        let mut different: Vec<String> = Vec::new();
        for word in words.into_iter().filter(|word| !word.is_empty()) {
            if !different.contains(&word) {
                different.push(word);
            }
        }
        different
    }

    #[test]
    fn runs_give_the_words_that_letters_give() {
        let parts = [
            "a",
            "Bc9",
            "  ",
            "-_",
            "\u{e9}",
            "\u{c9}T",
            "\u{7528}",
            "\u{130}",
            "\u{2026}",
            "0123456789abcdef",
            "\n",
            "x\u{df}y",
        ];
        let (mut random, mut words) = (1_usize, Words::default());
        for round in 0..2_000 {
            let mut text = String::new();
            for _ in 0..round % 40 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(parts[(random >> 33) % parts.len()]);
            }
            words.clear();
            words.add(&text);
            assert_eq!(words.list().collect::<Vec<_>>(), one_by_one(&text), "{text:?}");
            assert_eq!(words.text, one_by_one(&text).join(" "));
        }
    }
}
