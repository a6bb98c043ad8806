//! JSON that somebody sends who means harm.

/// Some 3,000 levels for a reader that takes a word of serde_json's own, strings within strings, none deeper than 128.
pub fn nested_in_strings() -> String {
    let mut text = "1".to_owned();
    for _ in 0..24 {
        let inner = text.replace('\\', "\\u005c").replace('"', "\\u0022");
        text = format!("{}{{\"$serde_json::private::RawValue\":\"{inner}\"}}{}", "[".repeat(126), "]".repeat(126));
    }
    text
}
