//! Texts of events as a terminal takes them.

/// Control characters could move the cursor, or end a comment of a script.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_blanks() {
        assert_eq!(printable("a\nb\u{1b}[1m"), "a b [1m");
    }
}
