//! Layers point one way: what each top-level module may name, in one table.

use crate::imports::named_paths;
use crate::masked::{masked, without_tests};
use crate::tree::{Finding, Tree, line_of};

const GROUND: [&str; 5] = ["lsn", "backoff", "failpoint", "event", "property"];

/// A module, and what it may import besides itself and the ground. Upper layers come last.
const MAY_IMPORT: [(&str, &[&str]); 13] = [
    ("config", &[]),
    ("observe", &["config"]),
    ("daemon", &["observe", "config"]),
    // The three ways out of the process know nothing of each other.
    ("postgres", &["daemon", "observe", "config"]),
    ("kafka", &["daemon", "observe", "config"]),
    ("replication", &["daemon", "observe", "config"]),
    ("outbox", &["replication", "kafka", "postgres", "daemon", "observe", "config"]),
    ("quarantine", &["outbox", "replication", "kafka", "postgres", "daemon", "observe", "config"]),
    (
        "consume",
        &[
            "quarantine",
            "outbox",
            "replication",
            "kafka",
            "postgres",
            "daemon",
            "observe",
            "config",
        ],
    ),
    (
        "relay",
        &[
            "consume",
            "quarantine",
            "outbox",
            "replication",
            "kafka",
            "postgres",
            "daemon",
            "observe",
            "config",
        ],
    ),
    (
        "shop",
        &[
            "consume",
            "quarantine",
            "outbox",
            "replication",
            "kafka",
            "postgres",
            "daemon",
            "observe",
            "config",
        ],
    ),
    // The drill starts the shipped binaries as processes: it must not lean on what it judges.
    ("drill", &["outbox", "replication", "kafka", "postgres", "daemon", "observe", "config"]),
    // A checker that shares code with what it checks proves nothing.
    ("drill::check", &[]),
];

/// Crates that only one module may name, and why.
const ONLY_IN: [(&str, &str, &str); 1] =
    [("prometheus", "src/observe/", "every metric is declared and built in src/observe")];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs").filter(|(path, _)| path.starts_with("src/")) {
        let masked = masked(text);
        let code = without_tests(&masked);
        if !path.starts_with("src/bin/") && path != "src/lib.rs" {
            findings.extend(imports_of(path, code));
        }
        for (name, home, why) in ONLY_IN {
            if let Some(byte) = code.find(&format!("{name}::"))
                && !path.starts_with(home)
            {
                let place = format!("{path}:{}", line_of(code, byte));
                findings.push(Finding::new(place, format!("names the crate {name}: {why}")));
            }
        }
    }
    findings
}

fn imports_of(path: &str, code: &str) -> Vec<Finding> {
    let module = module_of(path);
    let Some((layer, allowed)) = layer_of(&module) else {
        let what = format!("module {} has no layer: give it a place in MAY_IMPORT", module[0]);
        return vec![Finding::new(path, what)];
    };
    let mut findings = Vec::new();
    for named in named_paths(code, &module) {
        let Some(top) = named.path.first() else { continue };
        let inside = named.path.join("::").starts_with(layer) || top == layer;
        if inside || GROUND.contains(&top.as_str()) && !GROUND.contains(&layer) {
            continue;
        }
        if !allowed.contains(&top.as_str()) {
            let place = format!("{path}:{}", line_of(code, named.byte));
            let what = format!("{layer} must not import {}", named.path.join("::"));
            findings.push(Finding::new(place, what));
        }
    }
    findings
}

/// The narrowest entry of the table that a module falls under; the ground imports nothing.
fn layer_of(module: &[String]) -> Option<(&'static str, &'static [&'static str])> {
    let whole = module.join("::");
    let under = |name: &str| whole == name || whole.starts_with(&format!("{name}::"));
    let ground = GROUND.iter().map(|name| (*name, [].as_slice()));
    let table = MAY_IMPORT.iter().copied().chain(ground);
    table.filter(|(name, _)| under(name)).max_by_key(|(name, _)| name.len())
}

/// `src/drill/cluster/mod.rs` is the module `drill::cluster`.
pub(crate) fn module_of(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&Tree::planted(&[(path, text)])).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_wrong_way_import_is_found_in_every_spelling() {
        let wrong = "src/config/file.rs:2: config must not import relay::Machine";
        for import in ["use crate::relay::Machine;", "use crate::{lsn::Lsn, relay::{Machine}};"] {
            assert_eq!(found("src/config/file.rs", &format!("//! x\n{import}\n")), [wrong]);
        }
        let inline = "//! x\nfn f() { crate::relay::Machine::new() }\n";
        assert_eq!(
            found("src/config/file.rs", inline),
            ["src/config/file.rs:2: config must not import relay::Machine::new"]
        );
        let relative = "//! x\nuse super::super::relay::Machine;\n";
        assert_eq!(found("src/config/file.rs", relative), [wrong]);
    }

    #[test]
    fn neighbours_in_a_layer_do_not_import_each_other() {
        assert_eq!(found("src/kafka/mod.rs", "use crate::postgres::Pool;").len(), 1);
        assert_eq!(found("src/relay/mod.rs", "use crate::drill::load::Plan;").len(), 1);
        assert_eq!(found("src/lsn.rs", "use crate::backoff::Backoff;").len(), 1);
    }

    #[test]
    fn the_checker_uses_ground_only() {
        let path = "src/drill/check/topics.rs";
        assert_eq!(found(path, "use crate::event::ID; use super::judge::judge;").len(), 0);
        for import in
            ["crate::postgres::Pool", "crate::drill::load::Plan", "super::super::proxy::P"]
        {
            assert_eq!(found(path, &format!("use {import};")).len(), 1, "{import}");
        }
    }

    #[test]
    fn the_right_way_and_tests_are_left_alone() {
        let text = "use crate::config::Section;\n#[cfg(test)]\nmod tests { use crate::relay::X; }";
        assert_eq!(found("src/postgres/mod.rs", text), [""; 0]);
    }

    #[test]
    fn a_module_without_a_place_and_a_stray_metric_are_found() {
        assert_eq!(found("src/novel/mod.rs", "").len(), 1);
        assert_eq!(found("src/relay/mod.rs", "fn f() { prometheus::Counter::new() }").len(), 1);
    }
}
