//! A headless Chromium, driven through the DevTools protocol (<https://chromedevtools.github.io/devtools-protocol/>).
//!
//! Every console error, uncaught exception, failed load and violation of the content security policy is kept, and
//! [`Page::finish`] asserts that there was none.

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::goms::{Folder, PATIENCE};
use super::{http, servers};

/// A running Chromium with a profile of its own. Dropping it kills it.
pub struct Browser {
    child: Child,
    address: String,
    _profile: Folder,
}

/// A tab.
pub struct Page {
    socket: WebSocket<TcpStream>,
    last_id: u64,
    loads: usize,
    problems: Vec<String>,
}

/// What a visitor may see otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// 1280 by 800, light.
    Desk,
    /// The same, dark.
    Dark,
    /// 390 by 844, touched.
    Phone,
}

impl Browser {
    /// Starts one; `None` is a loud skip where there is no Chromium.
    pub fn start() -> Option<Self> {
        let program = servers::chromium()?;
        let profile = Folder::new();
        let mut child = Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--lang=en-US", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Chromium can be started");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines().map_while(Result::ok);
        let told = lines.find_map(|line| Some(line.split_once("DevTools listening on ws://")?.1.to_owned()));
        let address = told.and_then(|told| Some(told.split_once('/')?.0.to_owned())).expect("its address");
        std::thread::spawn(move || lines.for_each(drop)); // it goes on to print, and must not wait for a reader
        Some(Self { child, address, _profile: profile })
    }

    /// A new tab, as wide as a desk's screen.
    pub fn page(&self) -> Page {
        let told = http::request("PUT", &self.address, "/json/new?about:blank", &[], None).expect("a new tab").json();
        let url = told["webSocketDebuggerUrl"].as_str().expect("its address").to_owned();
        let stream = TcpStream::connect(&self.address).expect("Chromium answers");
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout can be set");
        stream.set_nodelay(true).expect("nodelay can be set");
        let (socket, _) = match tungstenite::client(url, stream) {
            Ok(opened) => opened,
            Err(tungstenite::HandshakeError::Interrupted(mut half)) => loop {
                match half.handshake() {
                    Ok(opened) => break opened,
                    Err(tungstenite::HandshakeError::Interrupted(again)) => half = again,
                    Err(error) => panic!("no WebSocket to Chromium: {error}"),
                }
            },
            Err(error) => panic!("no WebSocket to Chromium: {error}"),
        };
        let mut page = Page { socket, last_id: 0, loads: 0, problems: Vec::new() };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.look(Look::Desk);
        page
    }

    /// A new tab that shows this address.
    pub fn open(&self, url: &str) -> Page {
        let mut page = self.page();
        page.go(url);
        page
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // an error means that it has ended already
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Page {
    /// Goes to an address and waits until all of the page is there.
    pub fn go(&mut self, url: &str) {
        let before = self.loads;
        let gone = self.call("Page.navigate", json!({"url": url}));
        assert!(gone.get("errorText").is_none(), "{url}: {gone}");
        self.wait_for_load(before, url);
    }

    /// Clicks what leads to another page, and waits until all of that is there.
    pub fn follow(&mut self, selector: &str) {
        let before = self.loads;
        self.click(selector);
        self.wait_for_load(before, selector);
    }

    /// Presses Enter where that leads to another page.
    pub fn submit(&mut self) {
        let before = self.loads;
        self.press("Enter");
        self.wait_for_load(before, "Enter");
    }

    fn wait_for_load(&mut self, before: usize, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.loads == before {
            assert!(Instant::now() < deadline, "{what}: the page did not load in {PATIENCE:?}: {:?}", self.problems);
            self.read();
        }
    }

    /// The address that it shows.
    pub fn url(&mut self) -> String {
        self.eval("location.href").as_str().unwrap_or_default().to_owned()
    }

    /// What an expression gives, once it is resolved. Panics with what it throws.
    pub fn eval(&mut self, expression: &str) -> Value {
        let given = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", given);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub fn wait_for(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        // a page that is just being left cannot be asked
        let asked = json!({"expression": format!("Boolean({expression})"), "returnByValue": true});
        while self.call("Runtime.evaluate", asked.clone())["result"]["value"] != json!(true) {
            if Instant::now() > deadline {
                let text = self.text("body");
                panic!("waited {PATIENCE:?} for `{expression}`; the page says:\n{text}");
            }
            self.rest();
        }
    }

    /// Waits until the first element of a selector holds this text.
    pub fn wait_for_text(&mut self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.wait_for(&format!("document.querySelector({selector})?.innerText.includes({text})"));
    }

    /// The text of the first element of a selector as it is seen; waits for the element.
    pub fn text(&mut self, selector: &str) -> String {
        let selector = self.present(selector);
        self.eval(&format!("document.querySelector({selector}).innerText")).as_str().unwrap_or_default().to_owned()
    }

    /// The text of every element of a selector.
    pub fn texts(&mut self, selector: &str) -> Vec<String> {
        let found = self.eval(&format!("[...document.querySelectorAll({})].map(e => e.innerText)", json!(selector)));
        found.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    }

    /// How many elements a selector finds.
    pub fn count(&mut self, selector: &str) -> usize {
        let found = self.eval(&format!("document.querySelectorAll({}).length", json!(selector)));
        usize::try_from(found.as_u64().unwrap_or(0)).unwrap_or(usize::MAX)
    }

    /// An attribute of the first element of a selector; waits for the element.
    pub fn attribute(&mut self, selector: &str, name: &str) -> Option<String> {
        let selector = self.present(selector);
        let found = self.eval(&format!("document.querySelector({selector}).getAttribute({})", json!(name)));
        found.as_str().map(str::to_owned)
    }

    /// Clicks with the mouse into the middle of the first element of a selector; waits for the element.
    pub fn click(&mut self, selector: &str) {
        let found = self.present(selector);
        let place = self.eval(&format!(
            "(() => {{ const e = document.querySelector({found}); e.scrollIntoView({{block: 'center', behavior: 'instant'}}); \
             const r = e.getClientRects()[0] ?? e.getBoundingClientRect(); \
             return [r.x + r.width / 2, r.y + r.height / 2, r.width, r.height] }})()"
        ));
        assert!(place[2].as_f64() > Some(0.0) && place[3].as_f64() > Some(0.0), "`{selector}` cannot be seen: {place}");
        for (kind, buttons) in [("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)] {
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            let event = json!({"type": kind, "x": place[0], "y": place[1], "button": button, "buttons": buttons, "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Types into the first element of a selector, in place of what stood there.
    pub fn fill(&mut self, selector: &str, text: &str) {
        let selector = self.present(selector);
        self.eval(&format!("(() => {{ const e = document.querySelector({selector}); e.focus(); e.select?.(); }})()"));
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Chooses an option of a `select` by its value.
    pub fn choose(&mut self, selector: &str, value: &str) {
        let (selector, value) = (self.present(selector), json!(value));
        self.eval(&format!(
            "(() => {{ const e = document.querySelector({selector}); e.value = {value}; \
             e.dispatchEvent(new Event('input', {{bubbles: true}})); e.dispatchEvent(new Event('change', {{bubbles: true}})); }})()"
        ));
    }

    /// Presses a key where the keyboard is: `Tab`, `Enter`, `Escape`, `ArrowDown`, or a letter.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            " " => 32,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => u32::from(key.bytes().next().unwrap_or(0).to_ascii_uppercase()),
        };
        let text = match key {
            "Enter" => Some("\r"),
            _ if key.chars().count() == 1 => Some(key),
            _ => None,
        };
        let mut down = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code});
        if let Some(text) = text {
            down["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", down);
        self.call("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}));
    }

    /// From now on shown so.
    pub fn look(&mut self, look: Look) {
        let (width, height) = if look == Look::Phone { (390, 844) } else { (1280, 800) };
        let is_phone = look == Look::Phone;
        let screen = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone});
        self.call("Emulation.setDeviceMetricsOverride", screen);
        let scheme = if look == Look::Dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", media);
    }

    /// Keeps a picture of the whole page in `target/tmp/screenshots`.
    pub fn screenshot(&mut self, name: &str) {
        let taken = self.call("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true}));
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let png = base64::engine::general_purpose::STANDARD.decode(taken["data"].as_str().expect("a picture"));
        std::fs::write(folder.join(format!("{name}.png")), png.expect("base64")).expect("a file can be written");
    }

    /// Looks at the page on a desk, in the dark and on a phone: a picture of each (`NAME.png`, `NAME-dark.png`,
    /// `NAME-phone.png`), and of each that all can read it ([`Page::assert_readable`]).
    pub fn assert_looks(&mut self, name: &str) {
        for (look, suffix) in [(Look::Dark, "-dark"), (Look::Phone, "-phone"), (Look::Desk, "")] {
            self.look(look);
            self.rest();
            self.screenshot(&format!("{name}{suffix}"));
            self.assert_readable(&format!("{name}{suffix}"));
        }
    }

    /// Asserts what a machine can tell of accessibility: text has a contrast of WCAG AA (4.5, or 3 where it is large), every
    /// field and button has a name, ids are unique, the page is not wider than its screen, and has one `h1`.
    pub fn assert_readable(&mut self, name: &str) {
        let faults = self.eval(READABLE);
        assert_eq!(faults, json!([]), "{name}");
    }

    /// What went wrong on the page so far, and forgets it.
    pub fn take_problems(&mut self) -> Vec<String> {
        self.eval("new Promise(done => setTimeout(done))"); // what was about to be told has been
        std::mem::take(&mut self.problems)
    }

    /// Closes the tab and asserts that nothing went wrong on it: no console error, no exception, nothing that could not be
    /// loaded, no violation of the content security policy.
    pub fn finish(mut self) {
        let problems = self.take_problems();
        assert!(problems.is_empty(), "the page has problems:\n{}", problems.join("\n"));
        self.call("Page.close", json!({}));
    }

    /// Sends a command of the protocol and gives its result.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let command = json!({"id": id, "method": method, "params": parameters}).to_string();
        self.socket.send(Message::text(command)).expect("Chromium takes a command");
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "Chromium did not answer `{method}` in {PATIENCE:?}");
            let Some(mut told) = self.read() else { continue };
            if told["id"] == json!(id) {
                assert!(told.get("error").is_none(), "{method}: {}", told["error"]);
                return told["result"].take();
            }
        }
    }

    /// Reads one message, if one comes soon; events are noted.
    fn read(&mut self) -> Option<Value> {
        let text = match self.socket.read() {
            Ok(Message::Text(text)) => text,
            Ok(_) => return None,
            Err(tungstenite::Error::Io(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                return None;
            }
            Err(error) => panic!("Chromium is gone: {error}"),
        };
        let told: Value = serde_json::from_str(&text).expect("JSON of Chromium");
        self.note(&told);
        Some(told)
    }

    fn note(&mut self, event: &Value) {
        let of = &event["params"];
        match event["method"].as_str() {
            Some("Page.loadEventFired") => self.loads += 1,
            Some("Runtime.exceptionThrown") => self.problems.push(format!("exception: {}", of["exceptionDetails"])),
            Some("Runtime.consoleAPICalled") if matches!(of["type"].as_str(), Some("error" | "warning" | "assert")) => {
                self.problems.push(format!("console: {}", of["args"]));
            }
            Some("Log.entryAdded") if matches!(of["entry"]["level"].as_str(), Some("error" | "warning")) => {
                self.problems.push(format!("log: {} {}", of["entry"]["text"], of["entry"]["url"]));
            }
            _ => {}
        }
    }

    /// The selector as a word of JavaScript, once there is such an element.
    fn present(&mut self, selector: &str) -> String {
        let quoted = json!(selector).to_string();
        self.wait_for(&format!("document.querySelector({quoted})"));
        quoted
    }

    /// Lets the page go on for a moment, and reads what it tells meanwhile.
    fn rest(&mut self) {
        drop(self.read()); // an event, which is noted
    }
}

/// Gives a list of faults.
const READABLE: &str = r#"(() => {
  const faults = [];
  const parse = (text) => { const n = text.match(/[\d.]+/g).map(Number); return { r: n[0], g: n[1], b: n[2], a: n[3] ?? 1 }; };
  const over = (top, below) => ({ r: top.r * top.a + below.r * (1 - top.a), g: top.g * top.a + below.g * (1 - top.a),
    b: top.b * top.a + below.b * (1 - top.a), a: 1 });
  const light = ({ r, g, b }) => { const f = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const ground = (e) => { const layers = [];
    for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); layers.push(c); if (c.a === 1) break; }
    return layers.reverse().reduce((below, top) => over(top, below), { r: 255, g: 255, b: 255, a: 1 }); };
  const told = (e) => `${e.tagName.toLowerCase()}.${e.getAttribute('class') ?? ''} "${(e.textContent ?? '').trim().slice(0, 40)}"`;
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || e.closest('[disabled], .visually-hidden, .skip') || !e.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const style = getComputedStyle(e);
    const inSvg = e instanceof SVGElement;
    if (inSvg && e.dataset?.ground === undefined && e.closest('[data-contrast=own]')) continue;
    const below = ground(inSvg ? e.closest('svg').parentElement : e);
    const colour = over(parse(inSvg ? style.fill : style.color), below);
    const [a, b] = [light(colour), light(below)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) faults.push(`contrast ${ratio.toFixed(2)}: ${told(e)}`);
  }
  for (const e of document.querySelectorAll('input:not([type=hidden]), select, textarea, button')) {
    const named = e.labels?.length || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent.trim();
    if (!named) faults.push(`no name: ${e.outerHTML.slice(0, 80)}`);
  }
  for (const e of document.querySelectorAll('a')) {
    if (!e.textContent.trim() && !e.getAttribute('aria-label') && !e.querySelector('title')) faults.push(`no name: ${e.outerHTML.slice(0, 80)}`);
  }
  for (const e of document.querySelectorAll('svg')) {
    if (!e.getAttribute('aria-label') && !e.querySelector('title') && e.getAttribute('aria-hidden') !== 'true') faults.push(`no name: ${e.outerHTML.slice(0, 80)}`);
  }
  const seen = new Set();
  for (const e of document.querySelectorAll('[id]')) { if (seen.has(e.id)) faults.push(`id twice: ${e.id}`); seen.add(e.id); }
  if (document.documentElement.scrollWidth > innerWidth) faults.push(`wider than the screen: ${document.documentElement.scrollWidth} of ${innerWidth}`);
  if (document.querySelectorAll('h1').length !== 1) faults.push(`h1: ${document.querySelectorAll('h1').length}`);
  return faults.slice(0, 20);
})()"#;
