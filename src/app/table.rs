//! Tables for people: columns as wide as their longest cell, two spaces apart.

/// Lays out rows under their header; the last column is not padded.
#[must_use]
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// `3s`, `12m`, `5h 3m`, `2d 4h`: how long ago a moment (milliseconds of Unix time) was; `-` when it is unknown.
#[must_use]
pub fn age(since_ms: i64, now_ms: i64) -> String {
    if since_ms <= 0 {
        return "-".to_owned();
    }
    let seconds = (now_ms - since_ms).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_blanks() {
        let rows = [vec!["user".to_owned(), "3".to_owned()], vec!["gateway".to_owned(), "1".to_owned()]];
        assert_eq!(render(&["SERVICE", "NODES"], &rows), "SERVICE  NODES\nuser     3\ngateway  1\n");
    }

    #[test]
    fn ages_keep_two_units() {
        let now_ms = 1_000_000_000;
        assert_eq!(age(0, now_ms), "-");
        assert_eq!(age(now_ms - 59_999, now_ms), "59s");
        assert_eq!(age(now_ms - 3_780_000, now_ms), "1h 3m");
        assert_eq!(age(now_ms - 187_200_000, now_ms), "2d 4h");
        assert_eq!(age(now_ms + 5_000, now_ms), "0s");
    }
}
