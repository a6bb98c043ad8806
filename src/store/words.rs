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
        for letter in text.chars() {
            if letter.is_ascii_alphanumeric() {
                if self.text.len() - from < MAX_WORD_BYTES {
                    self.text.push(letter.to_ascii_lowercase());
                }
            } else if letter.is_ascii() || !letter.is_alphanumeric() {
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

/// Han, Hiragana and Katakana (Unicode blocks).
fn stands_alone(letter: char) -> bool {
    matches!(u32::from(letter), 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x2_0000..=0x3_ffff)
}
