//! The figures of our own process that every Prometheus dashboard expects, from `/proc/self`.
//!
//! Where there is no `/proc` the figures are missing rather than zero.

use std::fs;

/// One reading; a figure the system did not give is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Reading {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<i64>,
    pub(super) virtual_bytes: Option<i64>,
    pub(super) threads: Option<i64>,
    pub(super) open_fds: Option<i64>,
    pub(super) max_fds: Option<i64>,
}

/// Reads the figures now: three short reads of files that the kernel makes up.
pub(super) fn read() -> Reading {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    let mut reading = stat.as_deref().and_then(parse_stat).unwrap_or_default();
    // The listing's own descriptor is one of those it counts.
    reading.open_fds = fs::read_dir("/proc/self/fd")
        .ok()
        .and_then(|entries| i64::try_from(entries.count()).ok())
        .map(|count| count - 1);
    let limits = fs::read_to_string("/proc/self/limits").ok();
    reading.max_fds = limits.as_deref().and_then(parse_max_fds);
    reading
}

/// `pid (name) state …`: the name may hold spaces and brackets, so fields count from the last `)`.
fn parse_stat(stat: &str) -> Option<Reading> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // proc(5) counts from 1 and the first field here is its third: index = number - 3.
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
    let ticks = number(14)? + number(15)?;
    let page = i64::try_from(rustix::param::page_size()).ok()?;
    Some(Reading {
        cpu_seconds: Some(to_f64(ticks) / to_f64(rustix::param::clock_ticks_per_second())),
        threads: number(20),
        virtual_bytes: number(23),
        resident_bytes: number(24).map(|pages| pages * page),
        ..Reading::default()
    })
}

fn parse_max_fds(limits: &str) -> Option<i64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    // `unlimited` has no number to show.
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Ticks of CPU time stay far below 2^53, so nothing is rounded.
fn to_f64<N: TryInto<u64>>(number: N) -> f64 {
    number.try_into().map_or(0.0, |number| number as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat =
            "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 9 0 5000 8192 3 1844 1";
        let reading = parse_stat(stat).unwrap();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(reading.cpu_seconds, Some(200.0 / ticks));
        assert_eq!(reading.threads, Some(9));
        assert_eq!(reading.virtual_bytes, Some(8192));
        let page = i64::try_from(rustix::param::page_size()).unwrap();
        assert_eq!(reading.resident_bytes, Some(3 * page));
        assert_eq!(parse_stat("7 (cut"), None);
        assert_eq!(parse_stat("7 (cut) S 1 2"), None);
    }

    #[test]
    fn the_limit_of_open_files_is_the_soft_one() {
        let limits = "Limit   Soft Limit  Hard Limit  Units\n\
                      Max open files            1024                 4096                 files\n";
        assert_eq!(parse_max_fds(limits), Some(1024));
        assert_eq!(parse_max_fds("Max open files  unlimited unlimited files"), None);
    }

    #[test]
    fn this_process_has_figures() {
        let reading = read();
        assert!(reading.resident_bytes > Some(1 << 20), "{reading:?}");
        assert!(reading.open_fds > Some(2), "{reading:?}");
        assert!(reading.threads >= Some(1), "{reading:?}");
    }
}
