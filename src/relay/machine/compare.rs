//! The comparisons of the start-up path: may this relay go on from this record on this server?
//!
//! Pure; each answer is either "yes", "look further", or a [`Stop`].

use super::Settings;
use super::input::{Identity, SlotReport};
use super::stop::Stop;
use crate::lsn::Lsn;
use crate::relay::progress::{Mode, Progress};

/// How the server's timeline stands to the record's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timeline {
    Same,
    /// The history must be asked where the record's timeline ended.
    Newer,
}

/// Whose record it is, of which slot, from which system. Not yet: where.
pub(super) fn origin(
    settings: &Settings,
    progress: &Progress,
    identity: &Identity,
) -> Result<Timeline, Stop> {
    if progress.relay != settings.relay {
        let (found, own) = (progress.relay.clone(), settings.relay.clone());
        return Err(Stop::Relay { found, own });
    }
    match progress.mode {
        Mode::Cdc => {}
        Mode::Polling => return Err(Stop::Mode),
    }
    let own = settings.slot_of(progress.generation);
    if progress.slot != own {
        let (found, generation) = (progress.slot.clone(), progress.generation);
        return Err(Stop::Slot { found, generation, own });
    }
    if progress.system_id != identity.system_id {
        let (found, server) = (progress.system_id.clone(), identity.system_id.clone());
        return Err(Stop::System { found, server });
    }
    let (found, server) = (progress.timeline, identity.timeline);
    match found.cmp(&server) {
        std::cmp::Ordering::Equal => Ok(Timeline::Same),
        std::cmp::Ordering::Less => Ok(Timeline::Newer),
        // The record was written on a later timeline: this server is the old primary.
        std::cmp::Ordering::Greater => Err(Stop::Timeline { found, server }),
    }
}

/// After a failover: at or below the switch point, both servers agree on everything published.
pub(super) fn history(
    progress: &Progress,
    identity: &Identity,
    ended: &[(u32, Lsn)],
) -> Result<(), Stop> {
    let timeline = progress.timeline;
    let Some((_, switch)) = ended.iter().find(|(ended, _)| *ended == timeline) else {
        return Err(Stop::Timeline { found: timeline, server: identity.timeline });
    };
    if !has(*switch, progress) {
        return Err(Stop::BeyondSwitch { at: progress.lsn, timeline, switch: *switch });
    }
    Ok(())
}

/// The server accepts any START position and silently skips every commit below it.
pub(super) fn reachable(progress: &Progress, xlogpos: Lsn) -> Result<(), Stop> {
    if !has(xlogpos, progress) {
        return Err(Stop::Ahead { at: progress.lsn, xlogpos });
    }
    Ok(())
}

/// Whether a log that ends at `end` contains what the record speaks of. A split transaction's
/// position is where its commit record *starts*: at the very end of the log there is no such record,
/// and another transaction may come to commit there.
fn has(end: Lsn, progress: &Progress) -> bool {
    if progress.index > 0 { progress.lsn < end } else { progress.lsn <= end }
}

/// While the slot is held, with the record that was read after fencing.
pub(super) fn slot(progress: &Progress, report: SlotReport) -> Result<(), Stop> {
    // The log's end of this very moment: a standby's IDENTIFY_SYSTEM may be long ago.
    reachable(progress, report.xlogpos)?;
    if report.confirmed_flush > progress.lsn {
        let (slot, at) = (progress.slot.clone(), progress.lsn);
        return Err(Stop::SlotAhead { slot, confirmed: report.confirmed_flush, at });
    }
    Ok(())
}
