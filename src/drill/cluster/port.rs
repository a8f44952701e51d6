//! Free TCP ports on loopback for servers that must know their port before they start.
//!
//! Promises a port that nobody listened on a moment ago, that no outgoing connection takes by
//! chance, and that this process never hands out twice. It cannot promise that no stranger takes
//! it in between: whoever starts a server tries again with another one.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Where ports start: below lie the well-known ones, and Postgres' and Kafka's own.
const LOWEST: u32 = 10_000;
/// What Linux uses for outgoing connections when it does not say.
const USUAL_EPHEMERAL: (u32, u32) = (32_768, 60_999);
/// Test processes have neighbouring pids; this many ports lie between the places they start at.
const STRIDE: u32 = 151;

static HANDED_OUT: AtomicU32 = AtomicU32::new(0);

/// A port on 127.0.0.1 that is free now, from outside the range of outgoing connections: within
/// that range any connection of any program could be given it before the server binds it.
pub fn free_port() -> Result<u16> {
    let ports = outside(ephemeral_range());
    let span = u32::try_from(ports.len()).expect("there are at most 65536 ports");
    let start = std::process::id().wrapping_mul(STRIDE);
    loop {
        let turn = HANDED_OUT.fetch_add(1, Ordering::Relaxed);
        if turn >= span {
            bail!("all {span} ports for servers were handed out; start a new process");
        }
        let index = (start % span + turn) % span;
        let port = ports[usize::try_from(index).expect("an index below 65536")];
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
}

fn ephemeral_range() -> (u32, u32) {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| {
            let mut numbers = text.split_whitespace().map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        })
        .unwrap_or(USUAL_EPHEMERAL)
}

/// Every port from [`LOWEST`] that is not ephemeral; all of them where the range leaves too few.
fn outside((low, high): (u32, u32)) -> Vec<u16> {
    let all = || (LOWEST..=u32::from(u16::MAX)).map(|port| u16::try_from(port).expect("≤ 65535"));
    let ports: Vec<u16> =
        all().filter(|port| u32::from(*port) < low || u32::from(*port) > high).collect();
    if ports.len() < 1000 { all().collect() } else { ports }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ports_are_distinct_and_outside_the_ephemeral_range() {
        let (low, high) = ephemeral_range();
        let ports: Vec<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 50);
        if high - low < 50_000 {
            assert!(ports.iter().all(|port| !(low..=high).contains(&u32::from(*port))));
        }
    }

    #[test]
    fn a_taken_port_is_not_handed_out() {
        let held: Vec<_> = (0..20)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, free_port().unwrap())).unwrap())
            .collect();
        let taken: HashSet<u16> = held.iter().map(|l| l.local_addr().unwrap().port()).collect();
        assert!((0..20).all(|_| !taken.contains(&free_port().unwrap())));
    }

    #[test]
    fn a_range_that_leaves_nothing_is_ignored() {
        assert_eq!(outside((1024, 65_535)).len(), 55_536);
    }
}
