//! How a state topic must be, as a pure function of what the broker says of it.

use std::collections::BTreeMap;

use crate::kafka::Failure;

/// The configuration of a state topic that we make.
pub(super) const CREATED: [(&str, &str); 7] = [
    ("cleanup.policy", "compact"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    // Only closed segments are compacted: small ones keep the topic short, and its read quick.
    ("segment.ms", "3600000"),
    ("segment.bytes", "67108864"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("max.compaction.lag.ms", "86400000"),
];

/// Copies that must have a record before it counts, where there are three or more.
const IN_SYNC: usize = 2;

pub(super) fn missing(name: &str) -> Failure {
    let config = CREATED.map(|(key, value)| format!("--config {key}={value}")).join(" ");
    Failure::Stop {
        fact: format!("topic {name} does not exist"),
        remedy: format!(
            "let the relay create it, or run kafka-topics.sh --create --topic {name} --partitions \
             1 --replication-factor 3 --config min.insync.replicas=2 {config}"
        ),
        may_heal: true,
    }
}

/// Refuses a topic that could lose what is in it. Without the right to see the configuration, only
/// what metadata tells is checked.
pub(super) fn check(
    name: &str,
    partitions: i32,
    replication: usize,
    config: Option<&BTreeMap<String, String>>,
) -> Result<(), Failure> {
    if partitions != 1 {
        return Err(Failure::stop(
            format!("topic {name} has {partitions} partitions instead of 1"),
            "its records would have no common order: name another topic for it; partitions cannot \
             be taken away",
        ));
    }
    let Some(config) = config else { return Ok(()) };
    let value = |key: &str| config.get(key).map_or("", |value| value.trim());
    let refuse = |what: String, why: &str, mend: &str| {
        let remedy = format!(
            "{why}; run kafka-configs.sh --alter --entity-type topics --entity-name {name} \
             --add-config {mend}"
        );
        Err(Failure::stop(format!("topic {name} has {what}"), remedy))
    };
    let policy = value("cleanup.policy");
    let has = |wanted: &str| policy.split(',').any(|part| part.trim() == wanted);
    if !has("compact") {
        return refuse(
            format!("cleanup.policy={policy}"),
            "the last record of a key must stay for ever",
            "cleanup.policy=compact,retention.ms=-1,retention.bytes=-1",
        );
    }
    // Retention is applied only where the policy has "delete" in it.
    for limit in ["retention.ms", "retention.bytes"] {
        if has("delete") && value(limit) != "-1" {
            return refuse(
                format!("cleanup.policy={policy} and {limit}={}", value(limit)),
                "what it keeps would be deleted with time",
                "cleanup.policy=compact,retention.ms=-1,retention.bytes=-1",
            );
        }
    }
    let in_sync: usize = value("min.insync.replicas").parse().unwrap_or(1);
    if in_sync > replication {
        return refuse(
            format!("min.insync.replicas={in_sync} with {replication} copies"),
            "no record could ever be written",
            &format!("min.insync.replicas={}", IN_SYNC.min(replication)),
        );
    }
    if replication > IN_SYNC && in_sync < IN_SYNC {
        return refuse(
            format!("min.insync.replicas={in_sync} with {replication} copies"),
            "a record that one broker alone has seen counts as written and can be lost with it",
            &format!("min.insync.replicas={IN_SYNC}"),
        );
    }
    if value("unclean.leader.election.enable") == "true" {
        return refuse(
            "unclean.leader.election.enable=true".to_owned(),
            "a broker that has missed records may become leader, and they are gone",
            "unclean.leader.election.enable=false",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(partitions: i32, replication: usize, given: &[(&str, &str)]) -> Result<(), String> {
        let mut config: BTreeMap<String, String> =
            CREATED.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        config.insert("min.insync.replicas".to_owned(), "1".to_owned());
        config.extend(given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        check("p", partitions, replication, Some(&config)).map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_we_make_passes() {
        assert_eq!(with(1, 1, &[]), Ok(()));
        assert_eq!(with(1, 3, &[("min.insync.replicas", "2")]), Ok(()));
    }

    #[test]
    fn what_could_lose_a_record_is_refused_with_the_command_that_mends_it() {
        for (replication, given, fact) in [
            (1, vec![("cleanup.policy", "delete")], "cleanup.policy=delete"),
            (
                1,
                vec![("cleanup.policy", "compact,delete"), ("retention.ms", "1000")],
                "retention.ms=1000",
            ),
            (3, vec![], "min.insync.replicas=1 with 3 copies"),
            (2, vec![("min.insync.replicas", "3")], "min.insync.replicas=3 with 2 copies"),
            (1, vec![("unclean.leader.election.enable", "true")], "unclean.leader"),
        ] {
            let message = with(1, replication, &given).unwrap_err();
            assert!(message.contains(fact) && message.contains("kafka-configs.sh"), "{message}");
        }
        assert!(with(2, 1, &[]).unwrap_err().contains("2 partitions instead of 1"));
    }

    #[test]
    fn retention_is_off_where_nothing_is_deleted() {
        assert_eq!(with(1, 1, &[("retention.ms", "1000")]), Ok(()));
        assert_eq!(with(1, 1, &[("cleanup.policy", "compact,delete")]), Ok(()));
    }

    #[test]
    fn without_the_right_to_look_the_partitions_are_checked_still() {
        assert_eq!(check("p", 1, 1, None), Ok(()));
        assert!(check("p", 2, 1, None).is_err());
    }
}
