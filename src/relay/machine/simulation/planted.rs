//! Each planted bug is caught, by its effect, within a bounded number of seeds.
//!
//! By its effect: the rules about a single Kafka transaction are off here, so that a bug must show in
//! what readers of Kafka see, in what the server is told, or in a relay that can not go on.

use super::World;
use crate::relay::machine::planted::Planted;

/// More than ten times what any of them has needed.
const SEEDS: u64 = 5_000;

fn expect_caught(planted: Option<Planted>, progress_apart: bool, by: &[&str]) {
    for seed in 0..SEEDS {
        if let Err(violation) = World::new(seed, planted, progress_apart).run() {
            eprintln!("{planted:?}: seed {seed}: {violation}");
            assert!(by.iter().any(|by| violation.starts_with(by)), "{violation}");
            return;
        }
    }
    panic!("{planted:?} was not caught by {SEEDS} seeds");
}

#[test]
fn acknowledging_before_the_commit_is_caught() {
    expect_caught(Some(Planted::AcknowledgeBeforeCommit), false, &["acknowledged"]);
}

#[test]
fn fencing_before_the_slot_is_held_is_caught() {
    expect_caught(Some(Planted::FenceBeforeSlot), false, &["a standby fences"]);
}

#[test]
fn skipping_the_commit_that_touches_progress_is_caught() {
    expect_caught(Some(Planted::SkipRule), false, &["lost", "acknowledged"]);
}

#[test]
fn progress_committed_apart_from_its_rows_is_caught() {
    expect_caught(None, true, &["twice"]);
}

#[test]
fn one_id_not_fenced_is_caught() {
    expect_caught(Some(Planted::OneIdNotFenced), false, &["twice", "out of order", "held"]);
}

#[test]
fn progress_not_read_again_after_fencing_is_caught() {
    expect_caught(Some(Planted::ReadBeforeFence), false, &["twice", "held"]);
}

#[test]
fn following_a_keepalive_in_the_middle_of_something_is_caught() {
    expect_caught(Some(Planted::FollowBusy), false, &["acknowledged"]);
}

#[test]
fn taking_a_doubtful_commit_for_a_commit_is_caught() {
    expect_caught(Some(Planted::TrustDoubt), false, &["lost", "acknowledged"]);
}

#[test]
fn looking_at_a_slot_that_is_no_longer_ours_is_caught() {
    expect_caught(Some(Planted::InspectUnheld), false, &["held"]);
}

#[test]
fn hearing_an_answer_to_a_forgotten_question_is_caught() {
    expect_caught(Some(Planted::HearForgotten), false, &["lost", "acknowledged", "a standby"]);
}
