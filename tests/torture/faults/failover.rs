//! F38: a failover that loses writes. The replica is cut off, the primary goes on taking writes and dies, and the
//! replica takes its place; what was primary comes back as the new one's replica, so that it can happen again.

use std::time::Duration;

use super::redis::{ask, bring_back, insist, launch};
use super::{Fault, Skipped};
use crate::harness::{Redis, Reply, eventually_true};
use crate::world::World;

/// How long the replica may take to be in step with its primary.
const SYNC_LIMIT: Duration = Duration::from_secs(20);
/// So many bytes behind is in step, under load.
const IN_STEP: u64 = 1 << 20;

struct CutOff;

/// # Errors
///
/// There is no replica, or it is not in step with its primary.
pub fn begin(world: &World) -> Result<Box<dyn Fault>, Skipped> {
    let (Some(replica), Some(follower)) = (&world.replica, world.follower()) else {
        return Err(Skipped("there is no replica but in the profile rollback".into()));
    };
    if !eventually_true(SYNC_LIMIT, || is_in_step(world.redis(), follower)) {
        return Err(Skipped("the replica does not come in step with its primary".into()));
    }
    replica.to_primary.refuse(true);
    replica.to_primary.cut();
    Ok(Box::new(CutOff))
}

impl Fault for CutOff {
    fn heal(self: Box<Self>, world: &World) -> u64 {
        let (Some(replica), Some(follower)) = (&world.replica, world.follower()) else { return 0 };
        let (old, new) = (world.redis(), follower);
        let lost = offset(old).unwrap_or(0).saturating_sub(offset(new).unwrap_or(u64::MAX));
        old.kill();
        insist(world, new, &["REPLICAOF", "NO", "ONE"]);
        world.fail_over();
        bring_back(world, new);
        launch(world, old);
        insist(world, old, &["REPLICAOF", "127.0.0.1", &replica.to_primary.port().to_string()]);
        replica.to_primary.refuse(false);
        lost
    }
}

/// How many bytes of writes it has seen.
fn offset(redis: &Redis) -> Option<u64> {
    redis.try_info("master_repl_offset")
}

fn is_in_step(primary: &Redis, follower: &Redis) -> bool {
    let Ok(Reply::Text(state)) = ask(follower, &["INFO", "everything"]) else { return false };
    let is_linked = ["master_link_status:up", "master_sync_in_progress:0", "aof_rewrite_in_progress:0"];
    let behind = || Some(offset(primary)?.saturating_sub(offset(follower)?));
    is_linked.iter().all(|word| state.contains(word)) && behind().is_some_and(|bytes| bytes < IN_STEP)
}
