//! The librdkafka options that are not the operator's, with the reason and the way out of each.
//!
//! Everything that is not in this table passes through. An option is in it only if some value of it
//! breaks the publishing protocol, hides a failure from it, or would be overwritten in silence.

/// When an option is refused.
pub(super) enum Only {
    /// Whatever its value.
    Always,
    /// If its value, as a number, is none that is allowed; text that is no number too.
    Unless(fn(i64) -> bool),
    /// If it is set to this.
    When(&'static str),
}

/// An option, when it is refused, why, and what to do instead.
pub(super) struct Rule {
    pub(super) key: &'static str,
    pub(super) only: Only,
    pub(super) why: &'static str,
    pub(super) way_out: &'static str,
}

const fn always(key: &'static str, why: &'static str, way_out: &'static str) -> Rule {
    Rule { key, only: Only::Always, why, way_out }
}

const fn unless(
    key: &'static str,
    allowed: fn(i64) -> bool,
    why: &'static str,
    way_out: &'static str,
) -> Rule {
    Rule { key, only: Only::Unless(allowed), why, way_out }
}

const fn when(
    key: &'static str,
    value: &'static str,
    why: &'static str,
    way_out: &'static str,
) -> Rule {
    Rule { key, only: Only::When(value), why, way_out }
}

/// In canonical names; see [`super::canonical`].
pub(super) const RULES: [Rule; 22] = [
    always(
        "transactional.id",
        "it follows from the relay's name, and fencing an old relay depends on it",
        "name the relay otherwise",
    ),
    always(
        "enable.idempotence",
        "without it a retry repeats or reorders records",
        "leave it out, it is on",
    ),
    always(
        "request.required.acks",
        "a record counts as published only when all replicas in sync have it",
        "leave it out, it is all",
    ),
    always(
        "isolation.level",
        "progress is read at the level that each step of the start needs",
        "leave it out",
    ),
    unless(
        "message.timeout.ms",
        |ms| ms > 0,
        "0 is for ever, and a transaction waits for its records",
        "leave it out: it follows from transaction.timeout.ms",
    ),
    unless(
        "max.in.flight.requests.per.connection",
        |count| (1..=5).contains(&count),
        "the broker remembers five batches of a producer, more are reordered by a retry",
        "set 1 to 5",
    ),
    unless(
        "message.send.max.retries",
        |count| count > 0,
        "a producer that does not retry loses a record at each change of a leader",
        "leave it out",
    ),
    always(
        "auto.commit.enable",
        "what was read is kept in the progress record, not in a group",
        "leave it out",
    ),
    always("enable.auto.offset.store", "no group's offsets are kept", "leave it out"),
    always(
        "group.id",
        "it follows from the relay's name, so that one right can be granted for it",
        "leave it out",
    ),
    always("group.instance.id", "no group is joined", "leave it out"),
    always("group.protocol", "no group is joined", "leave it out"),
    always(
        "auto.offset.reset",
        "a read of the progress that finds a gap must fail, not jump",
        "leave it out",
    ),
    always("enable.partition.eof", "it ends the read of the progress", "leave it out, it is on"),
    always(
        "delivery.report.only.error",
        "a commit waits for the report of each record",
        "leave it out",
    ),
    always("queuing.strategy", "order within a partition needs fifo", "leave it out, it is fifo"),
    when(
        "allow.auto.create.topics",
        "true",
        "a mistyped topic would be made with the broker's defaults",
        "use create_topics",
    ),
    when(
        "log.connection.close",
        "false",
        "a connection lost while a commit runs puts the commit in doubt, and only the log says so",
        "leave it out",
    ),
    unless(
        "statistics.interval.ms",
        |ms| ms == 0 || ms >= 1000,
        "statistics are kilobytes of text each time",
        "set 1000 or more, or 0",
    ),
    unless(
        "transaction.timeout.ms",
        |ms| (5_000..=900_000).contains(&ms),
        "a transaction must live through a change of leaders, and readers wait as long as this for \
         a dead relay's",
        "set 5000 to 900000",
    ),
    unless(
        "queue.buffering.max.messages",
        |count| count >= 1000,
        "0 is without bound, and few leave the connection idle",
        "set 1000 or more",
    ),
    always(
        "sasl.oauthbearer.token.endpoint.url",
        "this build has no OIDC client",
        "give a token by a command or a file instead",
    ),
];

impl Rule {
    /// Whether this rule refuses a value.
    pub(super) fn refuses(&self, value: &str) -> bool {
        match self.only {
            Only::Always => true,
            Only::Unless(allowed) => !value.trim().parse().is_ok_and(allowed),
            Only::When(refused) => value.trim().eq_ignore_ascii_case(refused),
        }
    }
}
