//! `rateLimit`: `100/s`, or `{ rate: 100/s, burst: 20, by: ip }`, or a list of either.

use std::time::Duration;

use super::decode::{At, Decoder, Field, number, word};
use super::names::{self, shown};
use super::terms::NONE;
use super::units::parse_duration;
use crate::gateway::rate::{By, RateLimit};

const BYS: [(&str, By); 3] = [("route", By::Route), ("caller", By::Caller), ("ip", By::Ip)];
/// More is none.
const MOST: u32 = 1_000_000;
/// The header fields count seconds.
const LEAST_PER: Duration = Duration::from_secs(1);
const MOST_PER: Duration = Duration::from_secs(86_400);

/// Reads `rateLimit`; `none` is an empty list.
pub(super) fn read(decoder: &mut Decoder, field: &Field<'_>) -> Vec<At<RateLimit>> {
    if field.is_scalar() && decoder.read(field, |text| Ok(text == NONE)) == Some(true) {
        return Vec::new();
    }
    let list = if field.is_table() { vec![field.clone()] } else { decoder.list(field) };
    let read = |field: &Field<'_>| limit(decoder, field).map(|value| At { value, place: field.place.clone() });
    list.iter().filter_map(read).collect()
}

fn limit(decoder: &mut Decoder, field: &Field<'_>) -> Option<RateLimit> {
    if field.is_scalar() {
        let (count, per) = decoder.read(field, rate)?;
        return Some(RateLimit { count, per, burst: count, by: By::default(), name: None });
    }
    let table = decoder.table(field, &["rate", "burst", "by", "name"]);
    let Some(rate_field) = table.get("rate") else {
        decoder.fault(&field.place, "has no `rate`; write for example `rate: 100/s`");
        return None;
    };
    let (count, per) = decoder.read(&rate_field, rate)?;
    let burst = table.get("burst").and_then(|field| decoder.read(&field, number(1, MOST)));
    let by = table.get("by").and_then(|field| decoder.read(&field, word("word", &BYS)));
    let name = table.get("name").and_then(|field| decoder.read(&field, names::action_name));
    Some(RateLimit { count, per, burst: burst.unwrap_or(count), by: by.unwrap_or_default(), name })
}

/// `100/s`, `5/10s`.
fn rate(text: &str) -> Result<(u32, Duration), String> {
    let bad = || format!("`{}` is no rate; write for example `100/s`, `1000/m` or `5/10s`", shown(text));
    let (count, per) = text.split_once('/').ok_or_else(bad)?;
    let count = count.trim().parse::<u32>().map_err(|_| bad())?;
    let per = per.trim();
    let per = match per.chars().next() {
        None => return Err(bad()),
        Some(first) if first.is_ascii_digit() => parse_duration(per),
        Some(_) => parse_duration(&format!("1{per}")),
    };
    let per = per.map_err(|_| bad())?;
    if count == 0 || count > MOST {
        return Err(format!("must be from 1 to {MOST} requests, got `{}`", shown(text)));
    }
    if !(LEAST_PER..=MOST_PER).contains(&per) {
        return Err(format!("must be in at least `1s` and at most `1d`, got `{}`", shown(text)));
    }
    Ok((count, per))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        for (text, count, secs) in
            [("100/s", 100, 1), ("5/10s", 5, 10), ("1000/m", 1000, 60), ("1/1h", 1, 3600), ("7 / d", 7, 86_400)]
        {
            assert_eq!(rate(text), Ok((count, Duration::from_secs(secs))), "{text}");
        }
        for bad in ["", "100", "/s", "s/100", "0/s", "-1/s", "1.5/s", "1/ms", "1/2d", "1/w", "2000000/s", "1/"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
