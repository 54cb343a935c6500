//! What happens to the connections of one node: slow, cut in the middle of a reply, half open.

use std::sync::Arc;
use std::time::Duration;

use super::{Fault, Repeated, random, target};
use crate::harness::{Mode, Proxy, Way};
use crate::plan::Step;
use crate::world::{Node, World};

/// Which of a node's three proxies.
#[derive(Clone, Copy)]
enum Side {
    Redis,
    Http,
    Tcp,
}

impl Side {
    fn of(self, node: &Node) -> &Proxy {
        match self {
            Side::Redis => &node.redis,
            Side::Http => &node.http,
            Side::Tcp => &node.tcp,
        }
    }
}

/// A proxy that does what it should not.
struct Bent {
    node: usize,
    side: Side,
    before: u64,
}

impl Bent {
    fn begin(node: &Node, side: Side, ways: &[Way], mode: Mode) -> Box<dyn Fault> {
        let proxy = side.of(node);
        let before = proxy.effects();
        ways.iter().for_each(|way| proxy.set(*way, mode));
        Box::new(Bent { node: node.number, side, before })
    }
}

impl Fault for Bent {
    fn heal(self: Box<Self>, world: &World) -> u64 {
        let proxy = self.side.of(&world.nodes[self.node]);
        let effect = proxy.effects() - self.before;
        proxy.set_both(Mode::Pass);
        effect
    }
}

/// F23: what goes to Redis and back is late by up to `amount` ms; from 300, it is not late but few bytes a second.
pub fn slow(world: &World, step: &Step) -> Box<dyn Fault> {
    let mode = match step.amount {
        ms @ 0..300 => Mode::Jitter(Duration::from_millis(1), Duration::from_millis(ms + 1)),
        more => Mode::Throttle((5 + (more - 300) * 5 / 3) << 10),
    };
    Bent::begin(target(world, step), Side::Redis, &[Way::Up, Way::Down], mode)
}

/// F25: everything is swallowed, and nobody is told. `amount`: one way or both, and on which side of the node.
pub fn half_open(world: &World, step: &Step) -> Box<dyn Fault> {
    let ways: &[Way] = match step.amount % 3 {
        0 => &[Way::Up, Way::Down],
        1 => &[Way::Up],
        _ => &[Way::Down],
    };
    let side = match step.amount / 3 {
        0 | 1 => Side::Redis,
        2 => Side::Http,
        _ => Side::Tcp,
    };
    Bent::begin(target(world, step), side, ways, Mode::Swallow)
}

struct Cutting {
    node: usize,
    before: u64,
    cutter: Repeated,
}

/// F24: every connection to Redis is reset after up to `amount` more bytes, again and again; mostly within replies.
pub fn cut(world: &Arc<World>, step: &Step) -> Box<dyn Fault> {
    let node = target(world, step);
    let (mut random, most, number) = (random(world, step), step.amount, node.number);
    let (before, world) = (node.redis.effects(), Arc::clone(world));
    let cutter = Repeated::start(move || {
        let way = if random.percent(75) { Way::Down } else { Way::Up };
        world.nodes[number].redis.cut_each_after(way, || random.within(0, most));
        (0, Duration::from_millis(random.within(50, 500)))
    });
    Box::new(Cutting { node: number, before, cutter })
}

impl Fault for Cutting {
    fn heal(self: Box<Self>, world: &World) -> u64 {
        self.cutter.stop();
        let proxy = &world.nodes[self.node].redis;
        // What has not been cut yet is left alone.
        [Way::Up, Way::Down].into_iter().for_each(|way| proxy.spare_all(way));
        proxy.effects() - self.before
    }
}
