//! How many connections this process can hold, and what says so.
//!
//! A connection is a thread and a descriptor. A Rust thread takes four memory mappings, and past
//! the kernel's `vm.max_map_count` starting one does not fail: it aborts the process. So the number
//! is worked out at start, a reserve is kept, and the next connection is refused instead.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors that are not connections: Redis, files, listeners, and some kept back.
const OTHER_DESCRIPTORS: usize = 64;
/// Threads that are not connections.
const OTHER_THREADS: usize = 64;
/// What HTTP gets of itself at most, however much there is: senders keep few connections, clients one each.
pub(crate) const MOST_HTTP: usize = 4096;
/// What is kept back, at the least and at the most; else a tenth.
pub(crate) const LEAST_RESERVE: usize = 16;
const MOST_RESERVE: usize = 256;
const MAPPINGS_PER_THREAD: usize = 4;
/// Process numbers of everything else on this machine.
const OTHER_PIDS: usize = 1024;
/// Mappings of everything else.
const OTHER_MAPPINGS: usize = 2048;

/// What can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// TCP clients.
    pub(crate) clients: usize,
    /// HTTP connections.
    pub(crate) http: usize,
    /// What bounds their sum.
    pub(crate) bound: &'static str,
}

/// Works it out, with the limits that the operator set. Raises the soft descriptor limit to the
/// hard one, which needs no privilege.
pub(crate) fn find(clients: Option<usize>, http: Option<usize>) -> Capacity {
    share(measure(), clients, http)
}

fn share((total, bound): (usize, &'static str), clients: Option<usize>, http: Option<usize>) -> Capacity {
    let total = total - (total / 10).clamp(LEAST_RESERVE, MOST_RESERVE).min(total / 2);
    // However many are asked for, clients keep a quarter.
    let http_most = http.unwrap_or((total / 4).min(MOST_HTTP)).min(total - total / 4).max(1);
    let clients_most = clients.unwrap_or(usize::MAX).min(total.saturating_sub(http_most)).max(1);
    for (flag, asked, held) in [("--max-clients", clients, clients_most), ("--max-http", http, http_most)] {
        if let Some(asked) = asked.filter(|asked| *asked > held) {
            log::warn!("{flag} {asked} is more than this process can hold: {held}, bounded by {bound}");
        }
    }
    let bound = if clients == Some(clients_most) { "--max-clients" } else { bound };
    Capacity { clients: clients_most, http: http_most, bound }
}

/// Raises the soft descriptor limit to the hard one, which needs no privilege, and returns what holds then.
pub(crate) fn raise_descriptor_limit() -> usize {
    let mut descriptors = getrlimit(Resource::Nofile);
    descriptors.current = descriptors.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, descriptors) {
        log::warn!("the descriptor limit stays as it is: {error}");
    }
    limit(Resource::Nofile)
}

fn limit(resource: Resource) -> usize {
    getrlimit(resource).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// One of the limits on how many connections a process can hold.
pub(crate) struct Bound {
    /// So many, HTTP and TCP together.
    pub(crate) most: usize,
    pub(crate) name: &'static str,
    /// How to allow so many.
    pub(crate) mend: fn(usize) -> String,
}

/// All of them. Raises the soft descriptor limit.
pub(crate) fn bounds() -> [Bound; 6] {
    let descriptors = raise_descriptor_limit();
    let mappings = number("/proc/sys/vm/max_map_count").saturating_sub(OTHER_MAPPINGS) / MAPPINGS_PER_THREAD;
    [
        Bound {
            most: descriptors.saturating_sub(OTHER_DESCRIPTORS),
            name: "RLIMIT_NOFILE",
            mend: |n| format!("LimitNOFILE={} (or `ulimit -Hn`)", n + OTHER_DESCRIPTORS),
        },
        Bound {
            most: limit(Resource::Nproc).saturating_sub(OTHER_THREADS),
            name: "RLIMIT_NPROC",
            mend: |n| format!("LimitNPROC={} (or `ulimit -Hu`)", n + OTHER_THREADS),
        },
        Bound {
            most: mappings,
            name: "vm.max_map_count / 4",
            mend: |n| format!("sysctl -w vm.max_map_count={}", n * MAPPINGS_PER_THREAD + OTHER_MAPPINGS),
        },
        Bound {
            most: number("/proc/sys/kernel/threads-max") / 2,
            name: "kernel.threads-max / 2",
            mend: |n| format!("sysctl -w kernel.threads-max={}", n * 2),
        },
        Bound {
            most: number("/proc/sys/kernel/pid_max").saturating_sub(OTHER_PIDS),
            name: "kernel.pid_max",
            mend: |n| format!("sysctl -w kernel.pid_max={}", n + OTHER_PIDS),
        },
        Bound {
            most: number(&pids_max()).saturating_sub(OTHER_THREADS),
            name: "cgroup pids.max",
            mend: |n| format!("TasksMax={} (or a container's --pids-limit)", n + OTHER_THREADS),
        },
    ]
}

fn measure() -> (usize, &'static str) {
    let lowest = bounds().into_iter().min_by_key(|bound| bound.most);
    lowest.map_or((64, "nothing known"), |bound| (bound.most, bound.name))
}

/// How many connections there must be for so many clients: with HTTP's share and the reserve.
pub(crate) fn needed_for(clients: usize, http: Option<usize>) -> usize {
    let http = http.unwrap_or((clients / 3 + 1).min(MOST_HTTP));
    clients + http.max(1) + MOST_RESERVE
}

/// The file with the process limit of this process' own cgroup (version 2).
fn pids_max() -> String {
    let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    format!("/sys/fs/cgroup{}/pids.max", path.trim_end_matches('/'))
}

/// A file that holds a number; what is not there, or says "max", bounds nothing.
fn number(path: &str) -> usize {
    std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_kept_and_the_rest_is_shared() {
        let capacity = share((16_000, "x"), None, None);
        assert_eq!(capacity, Capacity { clients: 16_000 - 256 - 3936, http: 3936, bound: "x" });
        assert_eq!(share((160, "x"), None, None), Capacity { clients: 144 - 36, http: 36, bound: "x" });
    }

    #[test]
    fn an_operators_limit_holds_as_far_as_the_process_can() {
        let capacity = share((16_000, "x"), Some(2), Some(10));
        assert_eq!(capacity, Capacity { clients: 2, http: 10, bound: "--max-clients" });
        let capacity = share((1000, "x"), Some(5000), None);
        assert!(capacity.clients + capacity.http <= 900 && capacity.bound == "x");
    }

    #[test]
    fn what_is_needed_for_some_clients_holds_them() {
        for clients in [1, 100, 12_287, 12_288, 12_289, 30_000, 1_000_000] {
            for http in [None, Some(1), Some(4096), Some(5000)] {
                let total = needed_for(clients, http);
                let held = share((total, "x"), None, http).clients;
                assert!(held >= clients || http.is_some_and(|http| http > clients), "{clients} {http:?}: {held}");
            }
        }
    }

    #[test]
    fn however_little_there_is_something_is_held() {
        for total in 0..40 {
            let capacity = share((total, "x"), None, None);
            assert!(capacity.clients >= 1 && capacity.http >= 1, "{total}");
        }
    }
}
