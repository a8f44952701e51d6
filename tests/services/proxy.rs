//! The proxy in front of real servers: what it holds, delivers or throws away has happened, or not,
//! for the server, whatever its client believes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::drill::cluster::kafka::{Kafka, KafkaOptions, Listener};
use postrider::drill::proxy::{Cut, Direction, Event, Protocol, Proxy, RequestKind, Target};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::JoinHandle;

use crate::harness::{blocking, connect, postgres, shared_run, wait_until};

const DEADLINE: Duration = Duration::from_secs(30);
const TOPIC: &str = "proxied";

/// A broker, a client that comes through the proxy, and one that does not.
struct Scene {
    proxy: Proxy,
    producer: Arc<BaseProducer>,
    /// At read_committed, and not through the proxy.
    reader: Arc<BaseConsumer>,
    _kafka: Kafka,
}

/// A commit on its way, on a thread of its own.
type Commit = JoinHandle<KafkaResult<()>>;

impl Scene {
    async fn new() -> Self {
        let kafka = blocking(|| {
            let options = KafkaOptions { proxied: true, ..KafkaOptions::default() };
            let kafka = Kafka::start(shared_run(), options).unwrap();
            kafka.create_topic(TOPIC, 1, 1, &[]).unwrap();
            kafka
        })
        .await;
        let place = kafka.broker(1).proxied().unwrap();
        let proxy = Proxy::bind_on(place.listen, Protocol::Kafka).unwrap();
        proxy.forward_to(Target::Tcp(([127, 0, 0, 1], place.forward_to).into()));
        let mut config: ClientConfig =
            kafka.client_settings(Listener::Proxied).into_iter().collect();
        config.set("transactional.id", "relay");
        // The client shall be back at once: it is the proxy that makes it wait here.
        for (setting, ms) in [
            ("reconnect.backoff.ms", "10"),
            ("reconnect.backoff.max.ms", "50"),
            ("retry.backoff.ms", "20"),
            ("retry.backoff.max.ms", "50"),
        ] {
            config.set(setting, ms);
        }
        let producer = blocking(move || {
            let producer: BaseProducer = config.create().unwrap();
            producer.init_transactions(DEADLINE).unwrap();
            Arc::new(producer)
        })
        .await;
        let reader: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap())
            .set("group.id", "unused")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "20")
            .create()
            .unwrap();
        Self { proxy, producer, reader: Arc::new(reader), _kafka: kafka }
    }

    /// Sends a record in a transaction and leaves that open.
    fn send(&self, value: &str) {
        self.producer.begin_transaction().unwrap();
        let record = BaseRecord::<str, str>::to(TOPIC).payload(value);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(DEADLINE).unwrap();
    }

    /// Commits without waiting for it.
    fn commit(&self) -> Commit {
        let producer = Arc::clone(&self.producer);
        tokio::task::spawn_blocking(move || producer.commit_transaction(DEADLINE))
    }

    /// What a reader at read_committed sees.
    async fn seen(&self) -> Vec<String> {
        let reader = Arc::clone(&self.reader);
        blocking(move || read_all(&reader)).await
    }

    /// Control records follow the answer to a commit, so a reader may see them a moment later.
    async fn sees(&self, values: &[&str]) {
        wait_until(DEADLINE, &format!("{values:?} at read_committed"), async || {
            (self.seen().await == values).then_some(())
        })
        .await;
    }
}

fn read_all(reader: &BaseConsumer) -> Vec<String> {
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
    reader.assign(&all).unwrap();
    let (began, mut values) = (Instant::now(), Vec::new());
    loop {
        assert!(began.elapsed() < DEADLINE, "the broker did not answer a reader");
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                values.push(String::from_utf8(record.payload().unwrap().to_vec()).unwrap());
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return values,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_kafka_transaction_is_held_withheld_and_lost() {
    let scene = Scene::new().await;

    // Held: the transaction stays open, however sure its sender may be.
    scene.send("held");
    let held = scene.proxy.hold(RequestKind::END_TXN);
    let commit = scene.commit();
    held.caught(DEADLINE).await.unwrap();
    assert_eq!(scene.seen().await, Vec::<String>::new());
    assert!(!commit.is_finished());
    held.release();
    commit.await.unwrap().unwrap();
    scene.sees(&["held"]).await;
    assert_eq!(scene.proxy.counts().held, 1);

    // Delivered, and its answer withheld: visible although nobody was told. Nobody can be told while
    // the port is closed.
    scene.send("untold");
    let untold = scene.proxy.deliver_and_cut(RequestKind::END_TXN);
    scene.proxy.refuse().await.unwrap();
    let commit = scene.commit();
    untold.withheld(DEADLINE).await.unwrap();
    scene.sees(&["held", "untold"]).await;
    assert!(!commit.is_finished());
    scene.proxy.accept().await.unwrap();
    commit.await.unwrap().unwrap();
    scene.sees(&["held", "untold"]).await;

    // Thrown away: it never happened, until the client says it again.
    scene.send("again");
    let lost = scene.proxy.discard(RequestKind::END_TXN);
    let second = scene.proxy.hold(RequestKind::END_TXN);
    let commit = scene.commit();
    lost.decided(DEADLINE).await.unwrap();
    second.caught(DEADLINE).await.unwrap();
    assert_eq!(scene.seen().await, ["held", "untold"]);
    second.release();
    commit.await.unwrap().unwrap();
    scene.sees(&["held", "untold", "again"]).await;

    let counts = scene.proxy.counts();
    assert_eq!((counts.held, counts.cut), (2, 2), "{counts:?}");
    let strange = |event: &Event| matches!(event, Event::NotKafka { .. });
    assert!(!scene.proxy.events().iter().any(strange), "a broker's protocol was not understood");
}

#[tokio::test]
async fn a_postgres_commit_works_while_its_answer_is_frozen() {
    let database = postgres(16).await;
    let server = database.server;
    let socket = server.socket_folder().join(format!(".s.PGSQL.{}", server.port()));
    let proxy = Proxy::bind(Protocol::Opaque).unwrap();
    proxy.forward_to(Target::Unix(socket));
    let port = format!(":{}/", server.port());
    let url = database.url.replace(&port, &format!(":{}/", proxy.address().port()));
    assert_ne!(url, database.url);

    let client = connect(&url).await.unwrap();
    client.batch_execute("create table t ()").await.unwrap();
    client.batch_execute("begin; insert into t default values").await.unwrap();
    proxy.freeze_one(Direction::ToClient);
    let watcher = database.connect().await;
    let told = client.batch_execute("commit");
    let cut = async {
        wait_until(DEADLINE, "the commit to have worked", async || {
            let count = watcher.query_one("select count(*) from t", &[]).await.unwrap();
            (count.get::<_, i64>(0) == 1).then_some(())
        })
        .await;
        let stalled =
            |event: &Event| matches!(event, Event::Stalled { direction: Direction::ToClient, .. });
        proxy.wait_for(DEADLINE, "the answer that waits", stalled).await.unwrap();
        proxy.cut(Cut::Reset)
    };
    let (told, cut) = tokio::join!(told, cut);
    assert_eq!(cut, 1);
    assert!(told.is_err(), "it was told of its commit");

    // The same server, through the same proxy, once it is thawed.
    proxy.thaw();
    let again = connect(&url).await.unwrap();
    let count = again.query_one("select count(*) from t", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 1);
    assert_eq!((proxy.counts().opened, proxy.counts().cut), (2, 1));
}
