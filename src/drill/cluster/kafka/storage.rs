//! Formatting the data folders of a new cluster, without a JVM where that is possible.
//!
//! Promises what `StorageTool format` makes: a `meta.properties` with the cluster's and the node's
//! id, and the first metadata records with all features at their newest finalized level. The
//! records do not depend on the cluster, so those of an earlier format serve any new one; only SCRAM
//! users are among them and need the tool. It costs 0.9 s (0.4 s with an archive of classes),
//! a copy costs nothing.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::broker::{Broker, Plan};
use super::installation::BOOTSTRAP;
use super::settings::meta_properties;
use crate::drill::cluster::RunDir;

/// The tool needs a second; both cores may be busy with a build.
const FORMAT_DEADLINE: Duration = Duration::from_secs(60);

/// Kafka reads a cluster's id as 22 characters of URL-safe base64, of which hexadecimal digits are a
/// part. A new id a cluster: a client with an old address must not take one for another.
pub(super) fn new_cluster_id() -> String {
    let mut id = uuid::Uuid::new_v4().simple().to_string();
    id.truncate(22);
    id
}

/// Formats the folders of all brokers of a new cluster.
pub(super) fn format(run: &Arc<RunDir>, plan: &Plan, brokers: &[Broker]) -> Result<()> {
    let scram = plan.security.as_ref().map(|s| s.scram_arguments()).unwrap_or_default();
    let (records, rest) = match &plan.installation.warm {
        Some(warm) if scram.is_empty() => (warm.join(BOOTSTRAP), brokers),
        Some(_) | None => {
            run_tool(&brokers[0], &plan.cluster_id, scram)?;
            // All nodes must begin with the same records, so the tool runs once.
            (brokers[0].folder().join("data").join(BOOTSTRAP), &brokers[1..])
        }
    };
    for broker in rest {
        let data = broker.folder().join("data");
        let index = usize::try_from(broker.id() - 1).expect("ids count from 1");
        copy(run, &records, &data.join(BOOTSTRAP))?;
        broker.write("data/meta.properties", meta_properties(index, &plan.cluster_id))?;
    }
    Ok(())
}

fn run_tool(broker: &Broker, cluster_id: &str, scram: Vec<String>) -> Result<()> {
    let command =
        ["kafka.tools.StorageTool", "format", "-c", "server.properties", "-t", cluster_id];
    let class =
        command.into_iter().map(OsString::from).chain(scram.into_iter().map(OsString::from));
    let log = broker.folder().join("format.log");
    let tool = broker.java("kafka's StorageTool format", &log, class.collect())?;
    let status = tool.wait_exit(FORMAT_DEADLINE)?;
    ensure!(status.success(), "StorageTool format failed ({status}); {}", tool.log_tail());
    Ok(())
}

fn copy(run: &RunDir, from: &Path, to: &Path) -> Result<()> {
    fs::write(to, fs::read(from)?)?;
    run.hand_over(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_22_characters_and_new_each_time() {
        let (one, two) = (new_cluster_id(), new_cluster_id());
        assert_eq!(one.len(), 22);
        assert_ne!(one, two);
    }
}
