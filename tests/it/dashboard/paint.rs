//! How much a page is, and how soon it is seen. Times are printed for people to note; only sizes are asserted.

use super::{Up, traces_of};
use crate::support::browser::Browser;
use crate::support::http::{get, post};

/// What the browser measured of the page that it shows: bytes of the page itself, of all that it loaded, and when it was first painted.
const MEASURED: &str = "new Promise(done => { const read = () => {
  const [page] = performance.getEntriesByType('navigation'), parts = performance.getEntriesByType('resource');
  const paint = performance.getEntriesByName('first-contentful-paint')[0];
  const files = parts.filter(part => part.name.includes('/assets/'));
  if (!paint) return setTimeout(read, 10);
  done([page.decodedBodySize, files.reduce((sum, part) => sum + part.decodedBodySize, page.decodedBodySize), paint.startTime]);
}; read(); })";

#[test]
fn every_page_is_small() {
    let Some(browser) = Browser::start() else { return };
    let up = Up::start(&[]);
    for number in 0..30 {
        let sent = post(&up.gateway, "/api/user/login", &format!("{{\"n\": {number}}}")).expect("an answer");
        assert_eq!(sent.status, 200);
    }
    let last = get(&up.gateway, "/api/user/login").expect("an answer");
    let id = last.header("x-request-id").expect("an id").to_owned();
    traces_of(&up, &id);
    let mut page = browser.open(&up.url("/"));
    let request = format!("/traces/{id}");
    let operation = "/openapi?op=get%20/api/user/login";
    let paths = [
        "/",
        "/graph",
        "/traces",
        &request,
        "/traces/tail",
        "/routes",
        "/openapi",
        operation,
        "/playground",
        "/services/user",
    ];
    for path in paths {
        page.go(&up.url(path));
        let measured = page.eval(MEASURED);
        let bytes = |at: usize| measured[at].as_f64().expect("a number") as u64;
        eprintln!("{path}: {} bytes, with files {} bytes, first paint after {} ms", bytes(0), bytes(1), bytes(2));
        assert!((1_000..200_000).contains(&bytes(1)), "{path}: {measured}");
    }
    page.finish();
}
