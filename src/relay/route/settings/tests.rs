//! The configuration as an operator writes it.

use super::*;
use crate::config::{Sources, load};
use crate::relay::route::{Change, Reaction};

fn mappings(toml: &str) -> Result<Mappings, String> {
    let sources = Sources::new("POSTRIDER").toml("app.toml", toml);
    load::<Mappings>(sources).map(|loaded| loaded.settings).map_err(|problems| problems.to_string())
}

#[test]
fn the_defaults_are_debeziums() {
    let mappings = mappings("").unwrap();
    let [mapping] = mappings.all() else { panic!("one table") };
    assert_eq!(
        (mapping.section.as_str(), mapping.table.to_string().as_str()),
        ("outbox", "public.outbox")
    );
    let columns = [&mapping.id, &mapping.key, &mapping.payload, &mapping.route_by];
    assert_eq!(columns, ["id", "aggregateid", "payload", "aggregatetype"]);
    assert_eq!(mapping.topic.apply("order"), "outbox.event.order");
    assert_eq!((mapping.timestamp.as_ref(), mapping.placements.len()), (None, 0));
    assert_eq!((mapping.missing, mapping.tombstone_on_empty), (Missing::Error, false));
    assert_eq!((mapping.on_update, mapping.extras), (OnUpdate::Warn, Extras::default()));
}

#[test]
fn every_option_is_read() {
    let mappings = mappings(
        r#"[outbox]
        table = "Shop.events"
        column_id = "event_id"
        column_key = "k"
        column_payload = "body"
        column_timestamp = "at"
        route_by = "kind"
        topic_regex = "(.*)\\.v\\d+"
        topic_replacement = "events.$1"
        placement = "type:header:eventType,shard:partition"
        placement_missing = "ignore"
        tombstone_on_empty_payload = true
        on_update = "fatal"
        header_trace = true
        header_version = true
        header_created_at = true
        header_position = true"#,
    )
    .unwrap();
    let mapping = mappings.of("Shop.events").unwrap();
    assert_eq!(mapping.topic.apply("order.v2"), "events.order");
    assert_eq!(mapping.placements.len(), 2);
    assert_eq!((mapping.missing, mapping.on_update), (Missing::Ignore, OnUpdate::Fatal));
    assert_eq!(mapping.timestamp.as_deref(), Some("at"));
    assert!(mapping.tombstone_on_empty);
    let headers: Vec<_> = mapping.extras.headers().collect();
    assert_eq!(
        headers.join(" "),
        "traceparent tracestate aggregateversion created_at postrider-lsn postrider-xid \
         postrider-index"
    );
    assert!(mappings.of("shop.events").is_none());
}

#[test]
fn the_columns_needed_are_those_that_must_be_there() {
    let of = |toml: &str| {
        let mappings = mappings(&format!("[outbox]\n{toml}")).unwrap();
        mappings.all()[0].required_columns().join(" ")
    };
    let own = "id aggregatetype aggregateid payload";
    assert_eq!(of(""), own);
    let placed = "placement = 'a:header,b:partition'\ncolumn_timestamp = 'at'\n";
    assert_eq!(of(placed), format!("{own} at a b"));
    assert_eq!(of(&format!("{placed}placement_missing = 'ignore'")), format!("{own} at"));
    assert_eq!(of("header_trace = true"), format!("{own} traceparent"));
}

#[test]
fn a_further_table_inherits_what_it_leaves_out() {
    let toml = r#"[outbox]
        column_key = "k"
        on_update = "error"
        [outbox.billing]
        table = "billing.outbox"
        column_key = "invoice"
        [outbox.archive]
        table = "archive.outbox""#;
    let sources = Sources::new("POSTRIDER").toml("app.toml", toml);
    let variables = [("POSTRIDER__OUTBOX__BILLING__ROUTE_BY", "area")];
    let loaded = load::<Mappings>(sources.variables(variables)).unwrap();
    let mappings = loaded.settings;
    let of = |table: &str| {
        let mapping = mappings.of(table).unwrap();
        (mapping.section.as_str(), mapping.key.as_str(), mapping.route_by.as_str())
    };
    assert_eq!(of("public.outbox"), ("outbox", "k", "aggregatetype"));
    assert_eq!(of("billing.outbox"), ("outbox.billing", "invoice", "area"));
    assert_eq!(of("archive.outbox"), ("outbox.archive", "k", "aggregatetype"));
    assert!(mappings.all().iter().all(|mapping| mapping.on_update == OnUpdate::Error));
    for line in ["[outbox.billing]\n", "column_key = \"invoice\" # app.toml:6\n"] {
        assert!(loaded.effective.contains(line), "{}", loaded.effective);
    }
}

#[test]
fn what_is_wrong_is_said_once_and_where() {
    for (toml, says) in [
        ("[outbox]\ntable = 'outbox'", "write public.outbox if that is the one"),
        ("[outbox]\ntable = 'a.b.c'", "must be schema.table"),
        ("[outbox]\ntopic_regex = '(?=a)'", "look-ahead"),
        ("[outbox]\ntopic_replacement = '$2'", "no group 2"),
        ("[outbox]\nplacement = 'a:envelope'", "not supported in this version"),
        (
            "[outbox]\nexpand_json = true",
            "outbox.expand_json: \"true\", is not supported in this version",
        ),
        ("[outbox]\ncloudevents = true", "is not supported in this version"),
        ("[outbox]\nheader_trace = true\nplacement = 'x:header:traceparent'", "must not repeat"),
        ("[outbox.b]\ncolumn_key = 'k'", "outbox.b.table: not set, must be set"),
        ("[outbox.b]\ntable = 'public.outbox'", "[outbox] has it already"),
        ("[outbox.b]\ntable = 'b'", "outbox.b.table: \"b\", must be schema.table"),
        ("[outbox.b]\ntable = 'b.c'\ncolum_key = 'k'", "did you mean `outbox.b.column_key`?"),
        ("[outbox.B]\ntable = 'b.c'", "cannot be a name"),
        ("[outbox.b.c]\ntable = 'b.c'", "outbox.b.c.table: unknown key"),
        (
            "[outbox]\non_update = 'ignore'\n[outbox.b]\ntable = 'b.c'",
            "outbox.on_update: \"ignore\"",
        ),
    ] {
        let said = mappings(toml).unwrap_err();
        assert!(said.contains(says), "{toml}: {said}");
        assert!(said.starts_with("1 problem "), "{toml}: {said}");
    }
}

#[test]
fn only_an_update_can_be_a_matter() {
    for (word, reaction) in
        [("warn", Reaction::Warn), ("error", Reaction::Error), ("fatal", Reaction::Stop)]
    {
        let mappings = mappings(&format!("[outbox]\non_update = '{word}'")).unwrap();
        let mapping = &mappings.all()[0];
        assert_eq!(mapping.on_change(Change::Update), reaction);
        assert_eq!(mapping.on_change(Change::Delete), Reaction::Ignore);
        assert_eq!(mapping.on_change(Change::Truncate), Reaction::Ignore);
    }
}
