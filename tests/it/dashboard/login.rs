//! Who may see the pages.

use super::Up;
use crate::support::browser::Browser;
use crate::support::goms::{Folder, run};
use crate::support::http::{get, request};

const TOKEN: &str = "the-token-that-may-change";
const READER: &str = "the-token-that-may-only-read";

fn config(folder: &Folder) -> String {
    let text = format!(
        "services: {{user: {{login: /login}}}}\nadmin: {{token: {TOKEN}, readOnlyToken: {READER}, hosts: [goms.test]}}\n"
    );
    folder.write("config.yml", &text)
}

#[test]
fn a_port_that_others_reach_tells_them_nothing_without_a_login() {
    let up = Up::start(&["--admin-bind", "0.0.0.0"]);
    up.goms.wait_for("the admin port is open to other machines without a login");
    let port = up.admin.rsplit(':').next().expect("a port");
    let admin = format!("127.0.0.1:{port}");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(&admin, path).expect("an answer").status, 200, "{path}");
    }
    for path in [
        "/",
        "/graph",
        "/live/overview",
        "/api",
        "/api/nodes",
        "/api/cluster",
        "/api/keys",
        "/login",
        "/assets/x",
        "/nothing",
    ] {
        let answer = get(&admin, path).expect("an answer");
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.text().contains("`admin: { token: … }`"), "{path}: {}", answer.text());
    }
}

#[test]
fn another_name_for_this_machine_is_refused() {
    let up = Up::start(&[]);
    let ask = |host: &str| {
        use std::io::{Read, Write};
        let mut socket = std::net::TcpStream::connect(&up.admin).expect("a connection");
        write!(socket, "GET /api/keys HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer.split(' ').nth(1).expect("a status").to_owned()
    };
    assert_eq!(ask("evil.example:80"), "421");
    assert_eq!(ask("localhost:80"), "200");
    assert_eq!(ask("127.0.0.1"), "200");
}

#[test]
fn the_cli_reads_other_nodes_with_the_token_of_its_config() {
    let folder = Folder::new();
    let config = config(&folder);
    let up = Up::start(&["--config", &config]);
    assert_eq!(get(&up.admin, "/api/nodes").expect("an answer").status, 401);
    let bearer = |token: &str, path: &str| {
        request("GET", &up.admin, path, &[("Authorization", &format!("Bearer {token}"))], None)
            .expect("an answer")
            .status
    };
    assert_eq!(
        (bearer(TOKEN, "/api/nodes"), bearer(READER, "/api/nodes"), bearer("wrong", "/api/nodes")),
        (200, 200, 401)
    );
    let with = run(up.folder.path(), &["cluster", "status", "--output", "json", "--config", &config]);
    let rows: serde_json::Value = serde_json::from_slice(&with.stdout).expect("rows");
    let of_user: Vec<_> = rows.as_array().expect("rows").iter().filter(|row| row["service"] == "user").collect();
    assert!(!of_user.is_empty() && of_user.iter().all(|row| row["answered"] == 0), "{rows}");
    let told = |output: &std::process::Output| {
        String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.contains("admin.readOnlyToken")).count()
    };
    assert_eq!(told(&with), 0, "{with:?}");
    let routes = run(up.folder.path(), &["cluster", "routes", "--config", &config]);
    assert!(String::from_utf8_lossy(&routes.stdout).contains("/api/user/login"), "{routes:?}");
    let without = run(up.folder.path(), &["cluster", "status", "--output", "json"]);
    let rows: serde_json::Value = serde_json::from_slice(&without.stdout).expect("rows");
    let rows = rows.as_array().expect("rows");
    assert!(!rows.is_empty() && rows.iter().all(|row| row["answered"].is_null()), "{rows:?}");
    assert_eq!(told(&without), 1, "{without:?}");
    let keys = run(up.folder.path(), &["cluster", "keys", "--output", "json"]);
    assert_eq!(told(&keys), 1, "{keys:?}");
    let routes = run(up.folder.path(), &["cluster", "routes"]);
    assert!(!routes.status.success() && told(&routes) == 1, "{routes:?}");
    let printed = run(up.folder.path(), &["config", "print", "--config", &config]);
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.contains("token: redacted") && !printed.contains(TOKEN) && !printed.contains(READER), "{printed}");
}

#[test]
fn what_changes_something_comes_from_a_page_of_this_port() {
    let folder = Folder::new();
    let up = Up::start(&["--config", &config(&folder)]);
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let post = |headers: &[(&str, &str)], body: &str| {
        let headers: Vec<_> = [&[form], headers].concat();
        request("POST", &up.admin, "/login", &headers, Some(body.as_bytes())).expect("an answer")
    };
    let page = get(&up.admin, "/login").expect("an answer").text();
    let csrf = page
        .split("name=\"csrf\" value=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("a token")
        .to_owned();
    assert_eq!(post(&[], &format!("secret={TOKEN}")).status, 403, "without");
    assert_eq!(post(&[], &format!("secret={TOKEN}&csrf=guess")).status, 403, "wrong");
    let right = format!("secret={TOKEN}&csrf={csrf}&next=//evil.test");
    assert_eq!(post(&[("Origin", "http://evil.test")], &right).status, 403, "of another site");
    assert_eq!(post(&[("Sec-Fetch-Site", "cross-site")], &right).status, 403, "of another site");
    let answer = post(&[("Origin", &format!("http://{}", up.admin))], &right);
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "nobody is led elsewhere");
    let cookie = answer.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && !cookie.contains(TOKEN), "{cookie}");
    let port = up.admin.rsplit(':').next().expect("a port");
    assert!(cookie.starts_with(&format!("goms-session-{port}=")), "another port of this host has its own: {cookie}");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    assert_eq!(request("GET", &up.admin, "/api/keys", &[("Cookie", &cookie)], None).expect("an answer").status, 200);
    // a session's forms bring its own token
    let logout = |csrf: &str| {
        let headers = [form, ("Cookie", &cookie)];
        request("POST", &up.admin, "/logout", &headers, Some(format!("csrf={csrf}").as_bytes()))
            .expect("an answer")
            .status
    };
    assert_eq!(logout(&csrf), 403, "that of the form before");
    let mut stream = stream(&up.admin, "/live/overview", &cookie);
    let page = request("GET", &up.admin, "/", &[("Cookie", &cookie), ("Accept", "text/html")], None)
        .expect("an answer")
        .text();
    let own = page.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    assert_eq!(logout(own), 303);
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut rest).expect("what was open ends with the session");
    assert_eq!(request("GET", &up.admin, "/api/keys", &[("Cookie", &cookie)], None).expect("an answer").status, 401);
    // who only reads changes nothing
    let read = [form, ("Authorization", &format!("Bearer {READER}"))];
    let answer = request("POST", &up.admin, "/anything", &read, Some(b"")).expect("an answer");
    assert!(answer.status == 403 && answer.text().contains("only reads"), "{}", answer.text());
    // a form that somebody was sent away from is not sent again
    let headers = [form, ("Accept", "text/html")];
    let answer = request("POST", &up.admin, "/playground?a=1", &headers, Some(b"a=b")).expect("an answer");
    assert_eq!((answer.status, answer.header("location")), (303, Some("/login?next=%2F")));
    let long = format!("secret={}&csrf={csrf}", "a".repeat(16 << 10));
    assert_eq!(post(&[], &long).status, 413, "a login is short");
}

/// A stream of events that is open, read up to its first word.
fn stream(admin: &str, path: &str, cookie: &str) -> std::net::TcpStream {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(admin).expect("a connection");
    socket.set_read_timeout(Some(crate::support::goms::PATIENCE)).expect("set");
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {admin}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("retry: 2000") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("a stream");
        seen.push(byte[0]);
    }
    socket
}

#[test]
fn who_guesses_passwords_must_wait_and_the_owner_never() {
    let folder = Folder::new();
    // the hash of some password that nobody here knows
    let hash = "$2y$04$abcdefghijklmnopqrstuuKxYsUBz9y0GAGYyGgYqRHq0hY9k0y0a";
    let text =
        format!("services: {{user: {{login: /login}}}}\nadmin: {{token: {TOKEN}, users: {{ann: \"{hash}\"}}}}\n");
    let up = Up::start(&["--config", &folder.write("config.yml", &text)]);
    let page = get(&up.admin, "/login").expect("an answer").text();
    let csrf = page.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let log_in = |filled: &str| {
        let body = format!("{filled}&csrf={csrf}");
        request("POST", &up.admin, "/login", &form, Some(body.as_bytes())).expect("an answer")
    };
    for _ in 0..10 {
        assert_eq!(log_in("user=ann&secret=guess").status, 401);
    }
    let late = log_in("user=ann&secret=guess");
    assert_eq!(late.status, 429, "{}", late.text());
    assert!(late.header("retry-after").is_some());
    up.goms.wait_for("too many wrong logins at the admin port");
    assert!(!up.goms.log().contains("guess") && !up.goms.log().contains(TOKEN));
    assert_eq!(log_in(&format!("secret={TOKEN}")).status, 303, "a right token is let in always");
}

#[test]
fn a_service_that_is_called_by_tls_is_sent_nothing_in_clear() {
    let folder = Folder::new();
    let config = folder.write("config.yml", "services: {user: {login: {path: /login, tls: {serverName: user}}}}\n");
    let up = Up::start(&["--config", &config]);
    let nodes = get(&up.admin, "/api/cluster").expect("an answer").json();
    let node = nodes.as_array().expect("nodes").iter().find(|node| node["service"] == "user").expect("a node");
    let address = node["node"].as_str().expect("a name").rsplit('_').next().expect("an address").to_owned();
    let page = get(&up.admin, "/login").expect("an answer").text();
    let csrf = page.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    let body = format!("to=user+{}&method=GET&target=/login&csrf={csrf}", address.replace(':', "%3A"));
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let answer = request("POST", &up.admin, "/playground", &form, Some(body.as_bytes())).expect("an answer");
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("called by TLS, which this page does not speak"), "{}", answer.text());
}

#[test]
fn a_person_logs_in_sees_and_leaves() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    let up = Up::start(&["--config", &config(&folder)]);
    let mut page = browser.open(&up.url("/graph?range=1h"));
    assert_eq!(page.text("h1"), "Log in");
    page.assert_looks("login");
    page.fill("#secret", "wrong <b>token</b>");
    page.submit();
    page.wait_for_text("main", "neither a token");
    assert!(page.take_problems().iter().all(|problem| problem.contains("401")));
    page.assert_looks("login-wrong");
    page.fill("#secret", READER);
    page.submit();
    assert!(page.url().ends_with("/graph?range=1h"), "{}", page.url());
    assert_eq!(page.text("h1"), "Service graph");
    page.wait_for_text(".top", "read only");
    page.wait_for_text("#live-state", "Live");
    page.follow(".top form button");
    assert_eq!(page.text("h1"), "Log in");
    page.go(&up.url("/"));
    assert_eq!(page.text("h1"), "Log in", "the session has ended");
    page.fill("#secret", TOKEN);
    page.submit();
    assert_eq!(page.text("h1"), "Overview");
    assert_eq!(page.count(".top .badge"), 0);
    page.finish();
}
