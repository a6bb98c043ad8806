//! RabbitMQ as the tests need it: a client that looks into queues, and a server of a test's own to stop and alarm.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use super::ports::free_port;

/// A client that does what no part of goms does for it.
pub struct Client {
    connection: Connection,
    channel: Channel,
}

impl Client {
    pub async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("rabbitmq answers");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        Self { connection, channel }
    }

    pub async fn declare(&self, queue: &str, options: QueueDeclareOptions) {
        self.channel.queue_declare(queue.into(), options, FieldTable::default()).await.expect("queue is declared");
    }

    /// A queue that refuses every message.
    pub async fn declare_full(&self, queue: &str) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(0));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        let options = QueueDeclareOptions::durable();
        self.channel.queue_declare(queue.into(), options, arguments).await.expect("queue is declared");
    }

    pub async fn publish(&self, queue: &str, body: &[u8]) {
        let options = BasicPublishOptions::default();
        let confirm = self
            .channel
            .basic_publish("".into(), queue.into(), options, body, BasicProperties::default())
            .await
            .expect("published");
        assert!(confirm.await.expect("confirmed").is_ack());
    }

    /// Messages that no consumer has taken, and consumers; `None` when there is no such queue.
    pub async fn look(&self, queue: &str) -> Option<(u32, u32)> {
        let channel = self.connection.create_channel().await.expect("a channel");
        let options = QueueDeclareOptions::default().passive();
        let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await.ok()?;
        Some((found.message_count(), found.consumer_count()))
    }

    pub async fn get(&self, queue: &str) -> Option<lapin::message::Delivery> {
        let options = BasicGetOptions { no_ack: true };
        Some(self.channel.basic_get(queue.into(), options).await.expect("get")?.delivery)
    }

    pub async fn unbind(&self, queue: &str, exchange: &str, key: &str) {
        let unbind = self.channel.queue_unbind(queue.into(), exchange.into(), key.into(), FieldTable::default());
        unbind.await.expect("queue is unbound");
    }

    /// The next message of a dead-letter queue, which may not be there yet: its body and the reason.
    pub async fn letter(&self, queue: &str) -> (Vec<u8>, String) {
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            if self.look(queue).await.is_some_and(|(messages, _)| messages > 0)
                && let Some(letter) = self.get(queue).await
            {
                let headers = letter.properties.headers().clone().expect("headers");
                let reason = headers.inner()["reason"].as_long_string().expect("a reason").to_string();
                return (letter.data, reason);
            }
            assert!(Instant::now() < give_up, "no letter in {queue}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn delete(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("queue is deleted");
    }
}

const BIN: &str = "/usr/lib/rabbitmq/bin";

/// A server of its own: own node, ports and folder, ended with the value.
pub struct RabbitMq {
    dir: tempfile::TempDir,
    port: u16,
    dist_port: u16,
    epmd_port: u16,
    epmd: Child,
    server: Option<Child>,
}

impl RabbitMq {
    /// `None` (a loud skip, a failure in CI) where none is installed.
    pub fn start() -> Option<Self> {
        super::servers::amqp()?; // tests with servers run only where the others do
        let dir = tempfile::tempdir().expect("a folder");
        let [port, dist_port, epmd_port] = std::array::from_fn(|_| free_port());
        let epmd = Command::new("epmd")
            .args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("epmd starts");
        let give_up = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", epmd_port)).is_err() {
            // rabbitmq would start one of its own, which outlives it
            assert!(Instant::now() < give_up, "epmd does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut server = Self { dir, port, dist_port, epmd_port, epmd, server: None };
        server.up();
        Some(server)
    }

    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Starts it (again) on the same folder and waits until it takes connections.
    pub fn up(&mut self) {
        std::fs::write(self.dir.path().join("plugins"), "[].").expect("plugins file");
        let log = std::fs::File::create(self.dir.path().join("out.log")).expect("log file");
        let mut command = Command::new(format!("{BIN}/rabbitmq-server"));
        self.environment(&mut command);
        let server = command.stdout(log.try_clone().expect("log file")).stderr(log).spawn().expect("rabbitmq starts");
        self.server = Some(server);
        let give_up = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || std::fs::read_to_string(self.dir.path().join("out.log")).unwrap_or_default();
            assert!(Instant::now() < give_up, "rabbitmq does not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let pid = self.dir.path().join("pid");
        while !std::fs::read_to_string(&pid).is_ok_and(|text| !text.trim().is_empty()) {
            assert!(Instant::now() < give_up, "rabbitmq wrote no pid file");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Has it write down which queues there are. RabbitMQ 3.10 that is killed within a second or so of the declaration of
    /// a durable queue may come back without it, and without the confirmed messages in it.
    pub fn settle(&self) {
        self.ctl(&["eval", "mnesia:sync_log()."]);
    }

    /// Ends its process where it stands.
    pub fn kill(&mut self) {
        let pid = std::fs::read_to_string(self.dir.path().join("pid")).unwrap_or_default();
        if !pid.trim().is_empty() {
            let killed = Command::new("kill").args(["-9", pid.trim()]).stderr(Stdio::null()).status();
            assert!(killed.is_ok(), "kill runs");
        }
        if let Some(mut server) = self.server.take() {
            drop(server.kill());
            drop(server.wait());
        }
        let give_up = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            assert!(Instant::now() < give_up, "rabbitmq does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(std::fs::remove_file(self.dir.path().join("pid")));
    }

    /// Sets off the memory alarm, or ends it: from then on it blocks who publishes.
    pub fn memory_alarm(&self, on: bool) {
        let watermark = if on { "0.000001" } else { "0.6" };
        self.ctl(&["set_vm_memory_high_watermark", watermark]);
    }

    /// Runs `rabbitmqctl` on it.
    pub fn ctl(&self, args: &[&str]) {
        let mut command = Command::new(format!("{BIN}/rabbitmqctl"));
        self.environment(&mut command);
        let done =
            command.args(["-n", &self.node()]).args(args).stdin(Stdio::null()).output().expect("rabbitmqctl runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Stops its process where it stands, or lets it go on.
    pub fn freeze(&self, on: bool) {
        let pid = std::fs::read_to_string(self.dir.path().join("pid")).expect("a pid file");
        let signal = if on { "-STOP" } else { "-CONT" };
        let done = Command::new("kill").args([signal, pid.trim()]).status().expect("kill runs");
        assert!(done.success());
    }

    fn node(&self) -> String {
        format!("goms{}@localhost", self.port)
    }

    fn environment(&self, command: &mut Command) {
        let path = |name: &str| -> PathBuf { self.dir.path().join(name) };
        command
            .env("RABBITMQ_NODENAME", self.node())
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", path("mnesia"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("ERL_CRASH_DUMP", path("erl_crash.dump")) // else it lies where the tests run
            .env("RABBITMQ_PID_FILE", path("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("HOME", self.dir.path());
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        if !std::thread::panicking() || self.server.is_some() {
            self.kill();
        }
        drop(self.epmd.kill());
        drop(self.epmd.wait());
    }
}
