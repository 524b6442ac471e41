//! A caller of `echo` who goes on while a host is attacked, and must notice nothing.

use crate::{Calm, Client, Host, text_input};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Calls are made this often, if the last one has ended.
const EVERY: Duration = Duration::from_millis(50);

/// Time in which a host says that it is well, whatever is done to it.
const HEALTH_WITHIN: Duration = Duration::from_millis(250);

/// One of a host that serves `echo`.
#[derive(Debug)]
pub struct Canary {
    calm: Calm,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Seen>,
}

/// What it has seen.
#[derive(Debug, Default)]
struct Seen {
    /// How long each call took, and each answer about the host's health.
    calls: Vec<Duration>,
    health: Vec<Duration>,
    /// By how much the machine kept the canary itself waiting at most.
    late: Duration,
}

/// A client of a host's health.
pub async fn health_of(host: &Host) -> HealthClient<Channel> {
    let channel = Endpoint::new(host.base().to_owned()).unwrap();
    HealthClient::new(channel.connect().await.unwrap())
}

impl Canary {
    /// Starts to call. What the host holds now is what it has to come back to.
    pub async fn start(host: &Host) -> Self {
        let client = Client::connect(host.base(), &host.pat()).await;
        let mut health = health_of(host).await;
        let stop = Arc::new(AtomicBool::new(false));
        // Threads and sandboxes come with the first call.
        client.predict("echo", vec![text_input("first")]).await;
        let task = tokio::spawn({
            let stop = stop.clone();
            async move {
                let mut seen = Seen::default();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let text = format!("call {}", seen.calls.len());
                    let answer = client.predict("echo", vec![text_input(&text)]).await;
                    assert_eq!(answer.text(), text, "{answer:?}");
                    seen.calls.push(began.elapsed());
                    let asked = Instant::now();
                    health.check(HealthCheckRequest::default()).await.unwrap();
                    seen.health.push(asked.elapsed());
                    let pause = EVERY.saturating_sub(began.elapsed());
                    let slept = Instant::now();
                    tokio::time::sleep(pause).await;
                    seen.late = seen.late.max(slept.elapsed() - pause);
                }
                seen
            }
        });
        Self { calm: Calm::of(host), stop, task }
    }

    /// Waits until the host holds no more than it did before an attack.
    pub async fn comes_back(&self, host: &Host, after: &str) {
        self.calm.comes_back(host, after).await;
    }

    /// Stops to call: no call has failed, the host has always said in time that it is
    /// well, nothing of its own has failed, and no token is in its log. Returns how
    /// many calls there were.
    pub async fn ends(self, host: &mut Host, after: &str) -> usize {
        self.comes_back(host, after).await;
        self.stop.store(true, Ordering::Relaxed);
        let Seen { mut calls, mut health, late } = self.task.await.unwrap();
        calls.sort_unstable();
        health.sort_unstable();
        let of = |took: &[Duration], part: f64| took[((took.len() - 1) as f64 * part) as usize];
        let slowest = of(&health, 1.);
        #[allow(clippy::print_stdout, reason = "the numbers belong to the machine")]
        {
            println!(
                "beside {after}: calls p50 {:?}, p99 {:?}; health p50 {:?}, slowest {slowest:?}, of \
             which {late:?} may be the machine's",
                of(&calls, 0.5),
                of(&calls, 0.99),
                of(&health, 0.5),
            );
        }
        assert!(slowest < HEALTH_WITHIN + late, "beside {after}: {slowest:?}, {late:?}");
        assert!(host.is_alive(), "after {after}");
        let log = host.log();
        for told in ["HOST_BUG", "the host failed", "thread 'server' panicked", &host.pat()] {
            assert!(!log.contains(told), "after {after}: {told} is in the log: {log}");
        }
        calls.len()
    }
}
