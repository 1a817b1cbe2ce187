//! What the agent does, without the agent: objects are decoded, applied, compiled, planned and written.

use std::net::IpAddr;
use std::slice;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use cellwall_abi::{Live, Mac};
use cellwall_datapath::{Datapath, Settings, now_tick};
use cellwall_kube::convert::{Decoded, decode};
use cellwall_policy::compile::Compiler;
use cellwall_policy::model::{Change, Cluster, Link, Touched};
use cellwall_policy::plan::{Op, plan};
use cellwall_policy::wanted::Observed;
use serde_json::Value;

use crate::objects::NODE;

/// How long each part of a change took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) compile: Duration,
    pub(crate) plan: Duration,
    pub(crate) write: Duration,
    pub(crate) writes: usize,
}

/// What is known, and the data path that it goes to.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) datapath: Datapath,
    pub(crate) observed: Observed,
    cluster: Cluster,
    compiler: Compiler,
    touched: Touched,
}

impl World {
    pub(crate) fn open(settings: Settings) -> Result<Self> {
        let datapath = Datapath::open(&settings).context("the data path cannot be opened")?;
        Ok(Self {
            observed: datapath.observe()?,
            compiler: Compiler::new(datapath.secret()),
            cluster: Cluster::new(NODE),
            touched: Touched::default(),
            settings,
            datapath,
        })
    }

    /// An object as the API server sends it.
    pub(crate) fn tell(&mut self, object: Value) -> Result<()> {
        let Decoded::Object(key, changes) = decode(object) else { bail!("this is no object of ours") };
        for change in changes {
            if let Change::Bad(problem) = &change {
                bail!("{key}: {problem:?}");
            }
            self.cluster.apply(change, &mut self.touched);
        }
        Ok(())
    }

    /// An interface that leads to a pod.
    pub(crate) fn link(&mut self, ifindex: u32, addresses: &[IpAddr], mac: Mac) {
        let link = Link {
            ifindex,
            name: format!("cw{ifindex}"),
            addresses: addresses.to_vec(),
            mac,
            preexisting: false,
        };
        self.cluster.apply(Change::Link(link), &mut self.touched);
    }

    /// Brings what was told into the kernel.
    pub(crate) fn converge(&mut self) -> Result<Took> {
        let touched = std::mem::take(&mut self.touched);
        let start = Instant::now();
        let compiled = self.compiler.compile(&self.cluster, &touched);
        let compile = start.elapsed();
        let start = Instant::now();
        let ops = plan(&compiled.wanted, &self.observed, &self.settings.capacities, now_tick())
            .map_err(|refusal| anyhow!("{refusal}"))?;
        let plan = start.elapsed();
        let start = Instant::now();
        self.datapath.run_all(&ops)?;
        let write = start.elapsed();
        for op in &ops {
            op.apply_to(&mut self.observed);
        }
        Ok(Took { compile, plan, write, writes: ops.len() })
    }

    /// A revision in which nothing differs: what it costs packets, without the grace periods of one that changes
    /// something.
    pub(crate) fn flip(&mut self) -> Result<()> {
        let op = Op::Flip { live: Live(self.observed.live.0 + 2) };
        self.datapath.run_all(slice::from_ref(&op))?;
        op.apply_to(&mut self.observed);
        Ok(())
    }

    /// The slot of a pod's interface.
    pub(crate) fn slot(&self, ifindex: u32) -> Result<u32> {
        self.observed.endpoints.get(&ifindex).copied().with_context(|| format!("{ifindex} has no slot"))
    }
}
