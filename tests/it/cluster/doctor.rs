//! `goms doctor`: what it says of a cluster that works, of one that does not, and of servers that are away.

use super::{gateway, service};
use crate::support::goms::{Folder, Goms, run};
use crate::support::ports::free_port;
use crate::support::servers;

fn doctor(folder: &Folder, more: &[&str]) -> (i32, String, String) {
    let mut args = vec!["doctor"];
    args.extend(more);
    let ended = run(folder.path(), &args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ended.status.code().unwrap_or(-1), text(&ended.stdout), text(&ended.stderr))
}

fn line<'a>(text: &'a str, part: &str) -> &'a str {
    text.lines()
        .find(|line| line.get(8..).is_some_and(|rest| rest.starts_with(part)))
        .unwrap_or_else(|| panic!("no {part} in {text}"))
}

#[test]
fn a_whole_cluster_is_well() {
    let folder = Folder::new();
    let up = Goms::start_in(folder.path(), &["up", "--http-port", "0", "--rpc-port", "0"]);
    up.wait_for("  gateway         http://");
    let (code, text, said) = doctor(&folder, &[]);
    assert_eq!((code, said.as_str()), (0, ""), "{text}");
    assert!(line(&text, "registry").starts_with("ok      registry      local at "), "{text}");
    assert!(line(&text, "registry").contains(": 5 nodes, read in "), "{text}");
    assert!(line(&text, "trace store").starts_with("ok      trace store   embedded, kept by 127.0.0.1:"), "{text}");
    assert!(line(&text, "clocks").ends_with("of 1 processes agree with this machine's"), "{text}");
    assert!(line(&text, "data folder").starts_with("ok "), "{text}");
    assert_eq!(up.terminate(), 0);
}

#[test]
fn what_is_missing_is_told_with_what_to_do() {
    let folder = Folder::new();
    let (_gateway, _) = gateway(&folder, &[]);
    let (_user, _) = service(&folder, "user", &[]);
    let (code, text, _) = doctor(&folder, &["--output", "json"]);
    assert_eq!(code, 0, "{text}");
    let found: Vec<serde_json::Value> = serde_json::from_str(&text).expect("findings");
    let store = found.iter().find(|finding| finding["part"] == "trace store").expect("a finding");
    assert_eq!(store["state"], "doubtful");
    assert_eq!(store["advice"], "start `goms trace-consumer` (or `goms up`)");
}

#[test]
fn servers_that_are_away_are_told_one_by_one() {
    let folder = Folder::new();
    let (etcd, amqp, elastic) = (free_port(), free_port(), free_port());
    let config = folder.write(
        "config.yml",
        &format!(
            "etcdAddr: ['127.0.0.1:{etcd}']\namqpAddr: 'amqp://guest:secret-1@127.0.0.1:{amqp}'\nesAddr: 'http://127.0.0.1:{elastic}'\n"
        ),
    );
    let (code, text, said) = doctor(&folder, &["--config", &config, "--data-dir", "/proc/nothing"]);
    assert_eq!((code, said.as_str()), (69, "goms: 4 parts do not work\n"), "{text}");
    for part in ["registry", "rabbitmq", "trace store", "data folder"] {
        assert!(line(&text, part).starts_with("BROKEN  "), "{text}");
    }
    assert!(line(&text, "call key").starts_with("look    call key      none: whoever reaches"), "{text}");
    assert!(line(&text, "rabbitmq").contains(&format!("127.0.0.1:{amqp}")) && !text.contains("secret-1"), "{text}");
}

#[test]
fn servers_that_are_there_are_well() {
    let (Some(etcd), Some(amqp), Some(elastic)) = (servers::etcd(), servers::amqp(), servers::elasticsearch()) else {
        return;
    };
    let folder = Folder::new();
    let name = format!("doctor{}", std::process::id());
    let config = folder.write(
        "config.yml",
        &format!("callServiceKey: a-key-of-ours\netcdAddr: ['{etcd}']\namqpAddr: '{amqp}'\nesAddr: '{elastic}'\namqp: {{queue: {name}}}\n"),
    );
    let (code, text, said) = doctor(&folder, &["--config", &config, "--namespace", &name]);
    assert_eq!((code, said.as_str()), (0, ""), "{text}");
    assert!(line(&text, "registry").contains("0 nodes"), "{text}");
    assert!(
        line(&text, "rabbitmq").ends_with(&format!("queue `{name}` is made by the first node that needs it")),
        "{text}"
    );
    assert!(
        line(&text, "trace store").starts_with("ok      trace store   elasticsearch, index trace_logs: "),
        "{text}"
    );
    assert!(text.contains("look    registry") && text.contains("goms up"), "{text}");
}
