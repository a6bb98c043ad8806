//! No event is lost and none is stored twice, whoever dies: counted by request id on one side and by event id on the
//! other, with the built binary.

mod broker_away;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{consumer, gateway, service, until};
use crate::support::goms::{Folder, Goms, run};
use crate::support::http::{post, wait_for_status};
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::{Client, RabbitMq};
use crate::support::servers;

const SERVICES: &str = "services: {user: {login: /login}}\n";
const PATIENCE: Duration = Duration::from_secs(20);
/// What a request through the gateway leaves.
const KINDS: [&str; 4] = ["request.end", "request.start", "service.end", "service.start"];
/// Between the requests of a thread: so all events of a test fit into one page of a search.
const PACE: Duration = Duration::from_millis(20);
const THREADS: usize = 3;

/// A request that was answered: when, its id, the status.
type Answered = (Instant, String, u16);

/// A steady load of which every request id is known.
struct Posts {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    /// Requests without an answer.
    unanswered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<Answered>>>,
}

impl Posts {
    fn start(address: &str) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let unanswered = Arc::new(AtomicUsize::new(0));
        let threads = (0..THREADS)
            .map(|_| {
                let (address, stop, count) = (address.to_owned(), Arc::clone(&stop), Arc::clone(&count));
                let unanswered = Arc::clone(&unanswered);
                std::thread::spawn(move || {
                    let mut answered = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        // without an answer (the gateway was killed) nothing is known of the request
                        if let Ok(answer) = post(&address, "/api/user/login", "{\"a\":1}") {
                            let id = answer.header("x-request-id").expect("an id").to_owned();
                            answered.push((Instant::now(), id, answer.status));
                            count.fetch_add(1, Ordering::Relaxed);
                        } else {
                            unanswered.fetch_add(1, Ordering::Relaxed);
                        }
                        std::thread::sleep(PACE.saturating_sub(began.elapsed()));
                    }
                    answered
                })
            })
            .collect();
        Self { stop, count, unanswered, threads }
    }

    /// Waits until so many more were answered.
    fn wait_for(&self, more: usize) {
        let goal = self.count.load(Ordering::Relaxed) + more;
        until("the load goes on", || (self.count.load(Ordering::Relaxed) >= goal).then_some(()));
    }

    fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    fn stop(self) -> Vec<Answered> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().expect("no load thread panics")).collect()
    }
}

/// What is stored: event ids and kinds of each request, every document counted. `None` while nothing can be read.
fn stored(folder: &Folder, with: &[&str]) -> Option<BTreeMap<String, Vec<(String, String)>>> {
    let mut requests: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let mut args = vec!["trace", "search", "--limit", "10000", "--output", "json"];
        args.extend(after.iter().flat_map(|after| ["--after", after.as_str()]));
        args.extend(with);
        let page: serde_json::Value = serde_json::from_slice(&run(folder.path(), &args).stdout).ok()?;
        for event in page["events"].as_array()? {
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            requests.entry(text("requestId")).or_default().push((text("event"), text("eventId")));
        }
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    requests.values_mut().for_each(|events| events.sort_unstable());
    Some(requests)
}

/// Waits until each of these requests has its four events; each event, of whatever request, is there once.
fn assert_each_once(folder: &Folder, with: &[&str], requests: &BTreeSet<&str>) {
    let deadline = Instant::now() + PATIENCE;
    let found = loop {
        let found = stored(folder, with).unwrap_or_default();
        let missing =
            requests.iter().filter(|id| found.get(**id).is_none_or(|events| events.len() < KINDS.len())).count();
        if missing == 0 {
            break found;
        }
        assert!(Instant::now() < deadline, "{missing} of {} requests lack events", requests.len());
        std::thread::sleep(Duration::from_millis(50));
    };
    for id in requests {
        let kinds: Vec<&str> = found[*id].iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, KINDS, "request {id}");
    }
    let ids: Vec<&str> = found.values().flatten().map(|(_, event)| event.as_str()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an event is stored twice");
}

/// Every request was answered with 200; their ids.
fn all_ok(answered: &[Answered]) -> BTreeSet<&str> {
    let bad: Vec<u16> = answered.iter().map(|(_, _, status)| *status).filter(|status| *status != 200).collect();
    assert!(bad.is_empty(), "{bad:?}");
    answered.iter().map(|(_, id, _)| id.as_str()).collect()
}

#[test]
fn kill_9_loses_only_the_last_flush_interval_and_a_living_process_delivers_the_rest() {
    let folder = Folder::new();
    let flush = Duration::from_secs(1); // so that a busy machine does not decide
    let config = folder.write("config.yml", &format!("{SERVICES}traces: {{flushInterval: {}s}}\n", flush.as_secs()));
    let with = ["--config", config.as_str(), "--access-log=false"];
    let (living, _) = service(&folder, "user", &with);
    let (gateway, address) = gateway(&folder, &with);
    let (user, _) = service(&folder, "user", &with);
    wait_for_status(&address, "/api/user/login", 200);
    let load = Posts::start(&address);
    let long_enough = Instant::now() + flush + flush / 2;
    until("events older than the flush interval", || (Instant::now() > long_enough).then_some(()));
    let killed = Instant::now();
    gateway.kill();
    user.kill();
    let answered = load.stop();
    let old: BTreeSet<&str> =
        answered.iter().filter(|(at, _, _)| *at + flush < killed).map(|(_, id, _)| id.as_str()).collect();
    assert!(old.len() > 20, "{} requests", old.len());
    // two folders of ended processes, of which nobody starts again
    living.wait_for_count("took over the spool of an ended process", 2, PATIENCE);
    let _consumer = consumer(&folder, &["--config", config.as_str()]);
    assert_each_once(&folder, &["--config", config.as_str()], &old);
}

/// How late a busy machine wakes who sleeps: the worst case until [`Lateness::stop`].
struct Lateness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Lateness {
    fn start() -> Self {
        const NAP: Duration = Duration::from_millis(1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut worst = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(NAP);
                worst = worst.max(began.elapsed() - NAP);
            }
            worst
        });
        Self { stop, thread }
    }

    fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only sleeps")
    }
}

/// The bound that the README states, with the default interval: all that the broker got and did not confirm is taken away
/// from it, so that only what was on disk in time is left.
#[test]
fn kill_9_with_nothing_confirmed_loses_only_the_default_flush_interval() {
    let Some(amqp) = servers::amqp() else { return };
    let target = amqp.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    let (proxy, folder, queue) = (Proxy::start(&target), Folder::new(), servers::unique("trace-"));
    let write = |name: &str, url: &str| {
        folder.write(name, &format!("{SERVICES}amqpAddr: \"{url}\"\namqp: {{queue: {queue}}}\n"))
    };
    let through = write("through.yml", &amqp.replace(&target, &proxy.address));
    let (gateway, address) = gateway(&folder, &["--config", &through]);
    let (user, _) = service(&folder, "user", &["--config", &through]);
    wait_for_status(&address, "/api/user/login", 200);
    let load = Posts::start(&address);
    load.wait_for(50);
    proxy.mute(); // messages arrive, confirmations do not
    let (muted, lateness) = (Instant::now(), Lateness::start());
    load.wait_for(150);
    let (killed, killed_ms) = (Instant::now(), jiff::Timestamp::now().as_millisecond());
    gateway.kill();
    user.kill();
    let bound = Duration::from_millis(100) + lateness.stop();
    let answered = load.stop();
    proxy.away(true);
    actix_web::rt::System::new().block_on(async { Client::connect(&amqp).await.delete(&queue).await });

    // an event is recorded before its request is answered, or, the last of a gateway, right then
    let is_old = |at: &Instant| *at > muted && *at + bound < killed;
    let old: BTreeSet<&str> = answered.iter().filter(|(at, _, _)| is_old(at)).map(|(_, id, _)| id.as_str()).collect();
    assert!(old.len() > 20, "{} requests, {bound:?}", old.len());
    let direct = write("direct.yml", &amqp);
    let with = ["--config", direct.as_str()];
    let (heir, _) = service(&folder, "user", &with);
    heir.wait_for_count("took over the spool of an ended process", 2, PATIENCE);
    let _consumer = consumer(&folder, &with);
    assert_each_once(&folder, &with, &old);
    let newest = run(folder.path(), &["trace", "search", "--limit", "1", "--output", "json", "--config", &direct]);
    let newest: serde_json::Value = serde_json::from_slice(&newest.stdout).expect("JSON");
    let age = killed_ms - newest["events"][0]["timeMs"].as_i64().expect("a time");
    assert!(
        age <= i64::try_from(bound.as_millis()).unwrap(),
        "the newest event was {age} ms old at the kill, {bound:?}"
    );
}

#[test]
fn a_consumer_with_a_wrong_password_says_so_and_reads_once_it_is_right() {
    let Some(rabbit) = RabbitMq::start() else { return };
    let folder = Folder::new();
    let url = rabbit.url().replacen("guest:guest", "tracer:secret", 1);
    let config = folder.write("config.yml", &format!("{SERVICES}amqpAddr: \"{url}\"\n"));
    let with = ["--config", config.as_str()];
    let admin = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("an address")
    };
    let (port, admin) = (admin.port().to_string(), admin.to_string());
    let args = ["trace-consumer", "--bind", "127.0.0.1", "--admin-port", &port, "--config", &config];
    let goms = Goms::start_in(folder.path(), &args);
    let line = goms.wait_for("trace consumer cannot read");
    assert!(line.contains("refuses user `tracer`; check user, password and permissions in `amqpAddr`"), "{line}");
    let answer = wait_for_status(&admin, "/readyz", 503);
    assert!(
        answer.text().contains("cannot read trace events") && answer.text().contains("`tracer`"),
        "{}",
        answer.text()
    );
    let (_gateway, address) = gateway(&folder, &with);
    let (_user, _) = service(&folder, "user", &with);
    wait_for_status(&address, "/api/user/login", 200);
    let load = Posts::start(&address);
    load.wait_for(50);
    rabbit.ctl(&["add_user", "tracer", "secret"]);
    rabbit.ctl(&["set_permissions", "tracer", ".*", ".*", ".*"]);
    goms.wait_for("trace consumer reads again");
    wait_for_status(&admin, "/readyz", 200);
    load.wait_for(50);
    let answered = load.stop();
    assert_each_once(&folder, &with, &all_ok(&answered));
    let log = goms.log();
    assert!(!log.contains("secret"), "{log}");
    assert_eq!(log.matches("trace consumer cannot read").count(), 1, "said once: {log}");
}

#[test]
fn a_consumer_killed_under_load_loses_and_doubles_nothing() {
    let (Some(amqp), Some(es)) = (servers::amqp(), servers::elasticsearch()) else { return };
    let folder = Folder::new();
    let (queue, index) = (servers::unique("trace-"), servers::unique("trace_logs-"));
    let config = folder.write(
        "config.yml",
        &format!("{SERVICES}amqpAddr: \"{amqp}\"\nesAddr: \"{es}\"\nesIndex: {index}\namqp: {{queue: {queue}}}\n"),
    );
    let with = ["--config", config.as_str()];
    let success = "amqp trace consumer success count=";
    let (first, second) = (consumer(&folder, &with), consumer(&folder, &with));
    let (_gateway, address) = gateway(&folder, &with);
    let (_user, _) = service(&folder, "user", &with);
    wait_for_status(&address, "/api/user/login", 200);
    let load = Posts::start(&address);
    first.wait_for_count(success, 3, PATIENCE);
    second.wait_for_count(success, 3, PATIENCE);
    first.kill();
    load.wait_for(200);
    let answered = load.stop();
    assert_each_once(&folder, &with, &all_ok(&answered));
}

#[test]
fn a_store_that_is_away_is_said_once_and_gets_everything_afterwards() {
    let Some(es) = servers::elasticsearch() else { return };
    let proxy = Proxy::start(es.trim_start_matches("http://"));
    let (folder, index) = (Folder::new(), servers::unique("trace_logs-"));
    let config =
        folder.write("config.yml", &format!("{SERVICES}esAddr: \"http://{}\"\nesIndex: {index}\n", proxy.address));
    let with = ["--config", config.as_str()];
    let consumer = consumer(&folder, &with);
    let (_gateway, address) = gateway(&folder, &with);
    let (_user, _) = service(&folder, "user", &with);
    wait_for_status(&address, "/api/user/login", 200);
    let load = Posts::start(&address);
    let (away, back) = ("the trace store takes nothing now", "the trace store takes events again");
    for round in 1..=2 {
        consumer.wait_for_count("direct trace consumer success count=", round, PATIENCE);
        proxy.away(true);
        consumer.wait_for_count(away, round, PATIENCE);
        load.wait_for(100);
        proxy.away(false);
        consumer.wait_for_count(back, round, PATIENCE);
    }
    let answered = load.stop();
    assert_each_once(&folder, &with, &all_ok(&answered));
    let log = consumer.log();
    assert_eq!((log.matches(away).count(), log.matches(back).count()), (2, 2), "{log}");
}

#[test]
fn trace_tail_prints_each_event_once_as_it_comes() {
    let folder = Folder::new();
    let up = Goms::start_in(folder.path(), &["up", "--http-port", "0", "--rpc-port", "0"]);
    let address = up.wait_for("  gateway         http://").rsplit('/').next().expect("an address").to_owned();
    let mut tail = Goms::start_in(folder.path(), &["trace", "tail"]);
    let send = || {
        let answer = post(&address, "/api/user/login", "{}").expect("an answer");
        answer.header("x-request-id").expect("an id").to_owned()
    };
    // it shows what happens after its start, which is when it shows the first
    let mut sent = Vec::new();
    until("tail shows something", || {
        sent.push(send());
        tail.log().contains("request.end").then_some(())
    });
    let mut last = String::new();
    for _ in 0..3 {
        last = send();
        tail.wait_for_count(&last, 4, PATIENCE);
        sent.push(last.clone());
    }
    let log = tail.log();
    for id in &sent {
        assert!(log.matches(id.as_str()).count() <= 4, "{id}: {log}");
    }
    for kind in KINDS {
        assert!(log.lines().any(|line| line.contains(&last) && line.contains(kind)), "{kind}: {log}");
    }
    tail.signal("INT");
    assert_eq!(tail.exit_code(), 0, "{}", tail.log());
}
