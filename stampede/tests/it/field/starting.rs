//! Commands that start concurrently, services that come before their servers, and processes that are the first of their
//! container.

use crate::command::stampede;
use sqlx::{AssertSqlSafe, MySqlPool};
use stampede_proto::payment::v1::{ListPaymentsRequest, payment_service_client::PaymentServiceClient};
use stampede_testkit::{
    Alone, FloatingAddress, MESH_SECRET, MeshBuilder, Service, World, as_buyer, buyer, eventually, heavy,
};
use std::{
    fs,
    future::ready,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

/// An address at which nobody listens.
const NOBODY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9);

/// Runs a program as the first process of a PID namespace, as a container does, and without the rights of root. It ends
/// with its parent.
const AS_FIRST: [&str; 6] = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"];
/// Longest time to stop for a process that has little to finish, on a machine that other tests load. One that ignored
/// the signal would wait for its servers for a minute, or go on for ever.
const SOON: Duration = Duration::from_secs(10);
/// Callers at a time, and the answers that they have had when it is told to stop.
const CALLERS: usize = 8;
const ANSWERS: usize = 100;

fn prepare(world: &World) -> Child {
    stampede(&["prepare", "--database-url", world.database_url(), "--kafka-brokers", world.brokers()])
        .args(["--schema-prefix", &world.schema_prefix(), "--kafka-topic-prefix", world.topic_prefix()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn case_27_of_two_that_prepare_at_once_both_succeed() {
    let world = World::new().unwrap();
    let both = [prepare(&world), prepare(&world)];
    for output in both.map(|child| child.wait_with_output().unwrap()) {
        assert!(output.status.success(), "{output:?}");
    }
}

/// A server that is not there so far.
struct Missing {
    /// Its host and port as its clients name them.
    host: String,
    server: SocketAddr,
    address: FloatingAddress,
}

impl Missing {
    /// The server that this URL leads to, or this host and port.
    async fn of(url: &str) -> Self {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_owned();
        let server = host.to_socket_addrs().unwrap().next().unwrap();
        let address = FloatingAddress::leading_to(NOBODY.into()).await.unwrap();
        Self { host, server, address }
    }

    /// The same URL with the address at which it will be.
    fn named_in(&self, url: &str) -> String {
        url.replacen(&self.host, &self.address.address().to_string(), 1)
    }

    fn comes(&self) {
        self.address.move_to(self.server);
    }
}

/// Waits until the log of each has this text.
async fn until_all_say(services: &[Alone], text: &str) {
    for service in services {
        let said = || ready(service.log().contains(text).then_some(()));
        eventually(&format!("case 27: a service says {text:?}"), said).await;
    }
}

/// Makes the schemas without a table, as `prepare` does first.
async fn make_empty_schemas(world: &World) {
    let server = MySqlPool::connect(&format!("{}?ssl-mode=disabled", world.database_url())).await.unwrap();
    for service in Service::ALL {
        let sql = format!("CREATE DATABASE {}{service}", world.schema_prefix());
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&server).await.unwrap();
    }
    server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_27_services_that_come_before_their_servers_and_before_prepare_get_ready_by_themselves() {
    let _permit = heavy().await;
    let world = World::new().unwrap();
    let (database, kafka) = tokio::join!(Missing::of(world.database_url()), Missing::of(world.brokers()));
    let services = Service::ALL.map(|service| {
        let builder = MeshBuilder::default()
            .set(service, "STAMPEDE_DATABASE_URL", database.named_in(&world.service_database_url(service)))
            .set(service, "STAMPEDE_KAFKA_BROKERS", kafka.named_in(world.brokers()));
        builder.launch(&world, service).unwrap()
    });
    until_all_say(&services, "waiting for a server").await;

    make_empty_schemas(&world).await;
    database.comes();
    until_all_say(&services, "was never prepared").await;
    let output = prepare(&world).wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    until_all_say(&services, "no broker at").await;
    kafka.comes();
    for service in &services {
        eventually("case 27: a service is ready", || async { service.is_ready().await.then_some(()) }).await;
    }
}

/// A process that is the first of its namespace.
struct First {
    /// The program that has made the namespace, and that ends as the process does.
    outside: Child,
    stderr: BufReader<ChildStderr>,
}

impl First {
    /// Starts a payment service on these servers, or at these addresses; `None` if this machine allows no namespaces.
    fn start(args: &[&str]) -> Option<Self> {
        let tried = Command::new("unshare").args(AS_FIRST).arg("true").output();
        if !tried.is_ok_and(|tried| tried.status.success()) {
            println!("left out: this machine lets nobody make namespaces (unshare {})", AS_FIRST.join(" "));
            return None;
        }
        let serve = stampede(&["serve", "payment", "--admin-addr", "127.0.0.1:0"]);
        let mut outside = Command::new("unshare");
        for (name, _) in serve.get_envs() {
            outside.env_remove(name);
        }
        let mut outside = outside
            .args(AS_FIRST)
            .arg(serve.get_program())
            .args(serve.get_args())
            .args(["--provider-url", "http://127.0.0.1:9"])
            .args(args)
            .env("STAMPEDE_WEBHOOK_SECRET", "a webhook secret of the tests")
            .env("STAMPEDE_MESH_SECRET", MESH_SECRET)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(outside.stderr.take().unwrap());
        Some(Self { outside, stderr })
    }

    /// Reads its log up to a line with this text.
    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "it has ended without {text:?}");
        }
    }

    /// Sends SIGTERM, as the container runtime does.
    fn terminate(&self) {
        let id = self.outside.id();
        let first = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        let kill = Command::new("kill").args(["-TERM", first.trim()]).status().unwrap();
        assert!(kill.success(), "case 27: process {first:?} is not there");
    }

    /// Checks that it stops in order, and soon, once it is told to.
    fn stops_in_order(&mut self) {
        self.terminate();
        let (asked, mut said) = (Instant::now(), String::new());
        self.stderr.read_to_string(&mut said).unwrap();
        let status = self.outside.wait().unwrap();
        assert_eq!(status.code(), Some(0), "case 27: {said}");
        assert!(asked.elapsed() < SOON, "case 27: it took {:?}: {said}", asked.elapsed());
    }
}

impl Drop for First {
    fn drop(&mut self) {
        // It may have ended already, which is fine.
        let _ = self.outside.kill();
        let _ = self.outside.wait();
    }
}

/// A signal without a handler is ignored in such a process: it would run until it is killed.
#[test]
fn case_27_the_first_process_of_a_container_stops_at_once_though_its_database_is_not_there() {
    let nowhere = ["--database-url", "mysql://nobody@127.0.0.1:9/nothing", "--kafka-brokers", "127.0.0.1:9"];
    let args = [&nowhere[..], &["--listen-addr", "127.0.0.1:0"]].concat();
    let Some(mut first) = First::start(&args) else { return };
    first.wait_for("waiting for");
    first.stops_in_order();
}

/// Makes one call after the other, until one fails.
async fn call_again_and_again(mut client: PaymentServiceClient<Channel>, answered: Arc<AtomicUsize>) {
    while client.list_payments(as_buyer(buyer(), ListPaymentsRequest::default())).await.is_ok() {
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_27_the_first_process_of_a_container_stops_under_load() {
    let world = World::prepared().await.unwrap();
    // It is free again at once.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().to_string();
    let (database, prefix) = (world.service_database_url(Service::Payment), world.topic_prefix());
    let servers = ["--database-url", &database, "--kafka-brokers", world.brokers(), "--kafka-topic-prefix", prefix];
    let Some(mut first) = First::start(&[&servers[..], &["--listen-addr", &address]].concat()) else { return };

    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let client = PaymentServiceClient::new(channel);
    eventually("case 27: it answers", || {
        let mut client = client.clone();
        async move { client.list_payments(as_buyer(buyer(), ListPaymentsRequest::default())).await.ok() }
    })
    .await;
    let (mut callers, answered) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..CALLERS {
        callers.spawn(call_again_and_again(client.clone(), answered.clone()));
    }
    let is_busy = || ready((answered.load(Ordering::Relaxed) > ANSWERS).then_some(()));
    eventually("case 27: it is busy", is_busy).await;
    first.stops_in_order();
}
