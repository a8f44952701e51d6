//! From the routing column to a topic's name, made and checked once for each value.
//!
//! It promises that every name it gives out is one that Kafka takes, and refuses the others with the
//! first rule they break.

use std::collections::HashMap;
use std::sync::Arc;

use super::pattern::TopicRule;
use super::refusal::excerpt;
use crate::event::TOPIC_BYTES_MAX;

/// Names kept in mind. Outboxes have some dozen topics; a routing column with a value of its own for
/// each row must not grow without end, so the memory is emptied when it is full.
const TOPICS_MAX: usize = 4096;

/// The topics of one table.
#[derive(Debug)]
pub(super) struct Topics {
    rule: TopicRule,
    known: HashMap<Box<[u8]>, Arc<str>>,
}

impl Topics {
    pub(super) fn new(rule: TopicRule) -> Self {
        Self { rule, known: HashMap::new() }
    }

    /// The topic of a value, or what is wrong with the name that it makes.
    pub(super) fn of(&mut self, routed_by: &[u8]) -> Result<Arc<str>, String> {
        if let Some(topic) = self.known.get(routed_by) {
            return Ok(Arc::clone(topic));
        }
        let Ok(text) = std::str::from_utf8(routed_by) else {
            return Err("is not UTF-8, and a topic's name is ASCII".to_owned());
        };
        let topic = self.rule.apply(text);
        check(&topic)?;
        let topic: Arc<str> = topic.into();
        if self.known.len() >= TOPICS_MAX {
            self.known.clear();
        }
        self.known.insert(routed_by.into(), Arc::clone(&topic));
        Ok(topic)
    }
}

/// Kafka's own rules for a topic's name.
fn check(topic: &str) -> Result<(), String> {
    if topic.is_empty() {
        return Err("makes an empty topic".to_owned());
    }
    if topic == "." || topic == ".." {
        return Err(format!("makes the topic {topic:?}, which Kafka does not take"));
    }
    if topic.len() > TOPIC_BYTES_MAX {
        let bytes = topic.len();
        return Err(format!("makes a topic of {bytes} bytes; Kafka takes {TOPIC_BYTES_MAX}"));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match topic.chars().find(|character| !legal(*character)) {
        Some(character) => Err(format!(
            "makes the topic \"{}\", and Kafka takes no {character:?} in a name: only letters, \
             digits, dot, underscore and hyphen of ASCII",
            excerpt(topic.as_bytes())
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(regex: &str, replacement: &str) -> Topics {
        Topics::new(TopicRule::pattern(regex).unwrap().with_replacement(replacement).unwrap())
    }

    #[test]
    fn a_name_is_made_once() {
        let mut topics = topics("(?<routedByValue>.*)", "outbox.event.${routedByValue}");
        let first = topics.of(b"order").unwrap();
        let again = topics.of(b"order").unwrap();
        assert_eq!(&*first, "outbox.event.order");
        assert!(Arc::ptr_eq(&first, &again));
    }

    #[test]
    fn names_that_kafka_refuses_are_refused() {
        let mut topics = topics("(.*)", "$1");
        let long = "a".repeat(TOPIC_BYTES_MAX + 1);
        for (routed_by, says) in [
            ("", "empty"),
            (".", "\".\""),
            ("..", "\"..\""),
            ("a b", "no ' '"),
            ("größe", "no 'ö'"),
            ("a\nb", "no '\\n'"),
            (long.as_str(), "250 bytes"),
        ] {
            let refused = topics.of(routed_by.as_bytes()).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
        assert!(topics.of(&[0xff]).unwrap_err().contains("UTF-8"));
        assert!(topics.of(&[b'a'; TOPIC_BYTES_MAX]).is_ok());
        assert!(topics.of(b"...").is_ok());
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut topics = topics("(.*)", "$1");
        for number in 0..=TOPICS_MAX {
            topics.of(number.to_string().as_bytes()).unwrap();
        }
        assert_eq!(topics.known.len(), 1);
    }
}
