//! How requests are shared: among services and versions, and with a mirror.

use super::decode::{Decoder, Field, Table, number, word};
use super::names;
use crate::gateway::{Compare, Mirror, Share};

/// The words of [`Compare`].
pub(super) const COMPARES: [(&str, Compare); 2] = [("body", Compare::Body), ("status", Compare::Status)];
/// A share in a thousand is the finest that is asked for.
const MOST_WEIGHT: u16 = 1000;
/// Each is looked at for every request of the route.
const MOST_SHARES: usize = 16;

/// What a route calls, and in which shares.
pub(super) fn shares(decoder: &mut Decoder, table: &Table<'_>) -> Option<Vec<Share>> {
    if let Some(field) = table.get("service") {
        let service = decoder.read(&field, names::service_name)?;
        if let Some(field) = table.get("versions") {
            let share = |version: &str, weight| Share::new(&service, Some(version), weight);
            return weighted(decoder, &field, version, share, "version", "{ 1.2.0: 90, 1.3.0: 10 }");
        }
        let version = table.get("version").map(|field| decoder.read(&field, version));
        return match version {
            None => Some(vec![Share::new(&service, None, 1)]),
            Some(version) => Some(vec![Share::new(&service, Some(&version?), 1)]),
        };
    }
    refuse_versions(decoder, table);
    let share = |service: &str, weight| Share::new(service, None, weight);
    let example = "{ shop: 90, shop-next: 10 }";
    weighted(decoder, &table.get("services")?, names::service_name, share, "service", example)
}

/// A version without a service that it is of.
pub(super) fn refuse_versions(decoder: &mut Decoder, table: &Table<'_>) {
    for key in ["version", "versions"] {
        if let Some(field) = table.get(key) {
            decoder.fault(&field.place, format!("`{key}` stands beside `service`, which names whose it is"));
        }
    }
}

fn weighted(
    decoder: &mut Decoder,
    field: &Field<'_>,
    name: fn(&str) -> Result<String, String>,
    share: impl Fn(&str, u16) -> Share,
    what: &str,
    example: &str,
) -> Option<Vec<Share>> {
    let weights = decoder.names(field, name);
    let read = |(name, field): (&str, &Field<'_>)| Some(share(name, decoder.read(field, number(0, MOST_WEIGHT))?));
    let shares: Vec<Share> = weights.iter().filter_map(read).collect();
    if shares.len() > MOST_SHARES {
        decoder.fault(&field.place, format!("names {} {what}s, at most {MOST_SHARES} share a route", shares.len()));
    }
    if shares.iter().all(|share| share.weight == 0) {
        if shares.len() < weights.iter().count() {
            return None; // one of them is told already
        }
        decoder.fault(&field.place, format!("gives no {what} a weight; write for example `{example}`"));
        return None;
    }
    Some(shares)
}

/// What a node may call its version.
fn version(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(format!("must be a version without spaces, such as `1.3.0`, got `{}`", names::shown(text)));
    }
    Ok(text.to_owned())
}

/// Reads `mirror`; `Some(None)` is `none`.
pub(super) fn mirror(decoder: &mut Decoder, field: &Field<'_>) -> Option<Option<Mirror>> {
    if field.is_scalar() {
        return decoder.read(field, |text| match text {
            "none" => Ok(None),
            _ => Err(format!("must be `none` or name a `service`, got `{}`", names::shown(text))),
        });
    }
    let table = decoder.table(field, &["service", "version", "share", "compare"]);
    let version = table.get("version").and_then(|field| decoder.read(&field, version));
    let permille = table.get("share").map_or(Some(1000), |field| decoder.read(&field, permille));
    let compare = table.get("compare").map(|field| decoder.read(&field, word("word", &COMPARES))).unwrap_or_default();
    let Some(service) = table.get("service") else {
        decoder.fault(&field.place, "has no `service`; write for example `{ service: shop-next, share: 10% }`");
        return None;
    };
    let to = Share::new(&decoder.read(&service, names::service_name)?, version.as_deref(), 1);
    Some(Some(Mirror { to, permille: permille?, compare: compare.unwrap_or_default() }))
}

/// `10%`, `0.5%`: at least a thousandth.
pub(super) fn permille(text: &str) -> Result<u16, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match number.filter(|percent| (0.1..=100.0).contains(percent)) {
        Some(percent) => Ok((percent * 10.0).round() as u16), // 1 to 1000
        None => Err(format!("must be a share from `0.1%` to `100%`, got `{}`", names::shown(text))),
    }
}
