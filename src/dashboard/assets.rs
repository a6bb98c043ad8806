//! The files that pages name: style sheets, scripts, the icon. They come from the binary, and their addresses hold a
//! hash of their text, so a browser keeps them for ever and still sees a new version at once.

use std::fmt::Write as _;
use std::sync::LazyLock;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpResponse, web};
use maud::{Markup, html};
use sha2::{Digest, Sha256};

/// Every file: its name and text. A style sheet or script named here is part of every page, in this order.
const FILES: [(&str, &str); 5] = [
    ("dashboard.css", include_str!("assets/dashboard.css")),
    ("traces.css", include_str!("assets/traces.css")),
    ("dashboard.js", include_str!("assets/dashboard.js")),
    ("traces.js", include_str!("assets/traces.js")),
    ("icon.svg", include_str!("assets/icon.svg")),
];

struct Asset {
    name: &'static str,
    text: &'static str,
    address: String,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let asset = |(name, text): (&'static str, &'static str)| {
        let mut hash = String::with_capacity(16);
        for byte in &Sha256::digest(text)[..8] {
            // writing into a String cannot fail
            write!(hash, "{byte:02x}").unwrap_or_default();
        }
        Asset { name, text, address: format!("/assets/{hash}/{name}") }
    };
    FILES.into_iter().map(asset).collect()
});

/// What a page's head says of them.
pub(super) fn links() -> Markup {
    html! {
        @for asset in ASSETS.iter() {
            @match kind(asset.name) {
                Kind::Style => link rel="stylesheet" href=(asset.address);,
                Kind::Script => script src=(asset.address) defer {},
                Kind::Icon => link rel="icon" type="image/svg+xml" href=(asset.address);,
            }
        }
    }
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    for asset in ASSETS.iter() {
        config.route(&asset.address, web::get().to(|| async { serve(asset) }));
    }
}

fn serve(asset: &Asset) -> HttpResponse {
    let content_type = match kind(asset.name) {
        Kind::Style => "text/css; charset=utf-8",
        Kind::Script => "text/javascript; charset=utf-8",
        Kind::Icon => "image/svg+xml",
    };
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, content_type))
        .insert_header((CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .body(asset.text)
}

enum Kind {
    Style,
    Script,
    Icon,
}

fn kind(name: &str) -> Kind {
    match name.rsplit('.').next() {
        Some("css") => Kind::Style,
        Some("js") => Kind::Script,
        _ => Kind::Icon,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_change_with_the_text() {
        let head = links().into_string();
        for asset in ASSETS.iter() {
            assert!(head.contains(&asset.address), "{head}");
            assert_eq!(asset.address.len(), "/assets//".len() + 16 + asset.name.len());
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        for (name, text) in FILES {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("@import"), "{name}");
        }
    }
}
