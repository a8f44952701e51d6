//! What is refused, what passes, and that nothing shows a value.

use super::*;

fn options(given: &[(&str, &str)]) -> Result<ClientOptions, Vec<OptionProblem>> {
    let mut all = BTreeMap::from([("bootstrap.servers".to_owned(), "127.0.0.1:9".to_owned())]);
    all.extend(given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    ClientOptions::new(all, None)
}

fn refused(key: &str, value: &str) -> String {
    match options(&[(key, value)]) {
        Ok(_) => panic!("{key} = {value} passed"),
        Err(problems) => problems[0].to_string(),
    }
}

#[test]
fn what_breaks_the_protocol_is_refused_by_name_with_a_way_out() {
    for (key, value) in [
        ("transactional.id", "mine"),
        ("enable.idempotence", "true"),
        ("acks", "1"),
        ("request.required.acks", "all"),
        ("isolation.level", "read_uncommitted"),
        ("message.timeout.ms", "0"),
        ("delivery.timeout.ms", "0"),
        ("max.in.flight", "6"),
        ("max.in.flight.requests.per.connection", "1000000"),
        ("retries", "0"),
        ("enable.auto.commit", "false"),
        ("group.id", "mine"),
        ("auto.offset.reset", "latest"),
        ("delivery.report.only.error", "true"),
        ("allow.auto.create.topics", "true"),
        ("transaction.timeout.ms", "1000"),
        ("log.connection.close", "false"),
    ] {
        let message = refused(key, value);
        assert!(message.contains(key) && message.contains(", since "), "{message}");
    }
}

#[test]
fn everything_else_passes_through() {
    let given = [
        ("linger.ms", "2"),
        ("compression.type", "zstd"),
        ("message.timeout.ms", "9000"),
        ("max.in.flight", "1"),
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", "relay"),
        ("sasl.password", "hunter2"),
        ("client.id", "x"),
    ];
    let config = options(&given).unwrap().config(&Purpose::Transactions { id: "a-0" });
    for (key, value) in given {
        assert_eq!(config.get(canonical(key)), Some(value), "{key}");
    }
    // Not overwritten by the default of the other name.
    assert_eq!(config.get("linger.ms"), None);
    assert_eq!(config.get("transactional.id"), Some("a-0"));
}

#[test]
fn all_problems_come_at_once_and_show_no_value() {
    let given = [("sasl.passwort", "hunter2"), ("acks", "0"), ("linger.ms", "hunter2")];
    let problems = options(&given).unwrap_err();
    let all = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!(problems.len(), 3, "{all}");
    assert!(all.contains("\"sasl.passwort\" does not exist"), "{all}");
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn both_names_of_an_option_are_one_too_many() {
    let problems = options(&[("linger.ms", "1"), ("queue.buffering.max.ms", "2")]).unwrap_err();
    assert!(problems[0].to_string().contains("both of its names"));
}

#[test]
fn brokers_are_needed() {
    let problems = ClientOptions::new(BTreeMap::new(), None).unwrap_err();
    assert_eq!(problems[0].key, "bootstrap.servers");
}

#[test]
fn debug_shows_names_only() {
    let options = options(&[("sasl.password", "hunter2")]).unwrap();
    let shown = format!("{options:?}");
    assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn the_queue_takes_the_largest_record() {
    let options = options(&[("message.max.bytes", "100000000")]).unwrap();
    assert_eq!(options.record_limit(), RecordLimit(100_000_000));
    let config = options.config(&Purpose::Idempotent);
    assert_eq!(config.get("queue.buffering.max.kbytes"), Some("97658"));
}

#[test]
fn bearer_tokens_and_their_source_belong_together() {
    let message = refused("sasl.mechanism", "OAUTHBEARER");
    assert!(message.contains("without a source"), "{message}");
    let brokers = [("bootstrap.servers".to_owned(), "127.0.0.1:9".to_owned())];
    let source = TokenSource::File("/token".into());
    let options = ClientOptions::new(BTreeMap::from(brokers), Some(source)).unwrap();
    let config = options.config(&Purpose::LookUp);
    assert_eq!(config.get("sasl.mechanisms"), Some("OAUTHBEARER"));
}

#[test]
fn every_default_is_known_to_librdkafka_by_its_only_name() {
    let tables = [&defaults::ANY[..], &defaults::PRODUCER, &defaults::CONSUMER];
    for (key, value) in tables.into_iter().flatten() {
        assert_eq!(problem_of(key, value), None);
        assert_eq!(canonical(key), *key);
    }
    for rule in &refused::RULES {
        assert_eq!(canonical(rule.key), rule.key);
    }
}
