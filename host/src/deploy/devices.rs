//! Who is given accelerators beside replicas that serve, and who can have none.

use super::Deployments;
use super::capacity::Amount;
use super::group::MakeRoom;
use super::version::Version;
use crate::devices::{Given, NoDevice};
use crate::limits::{Accelerators, limit};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long an upload waits for what it is to be tried on, and how often it looks.
const TIMEOUT: Duration = Duration::from_secs(60);
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Versions that are named at once because they cannot be served.
const NAMED_MAX: usize = 20;

/// Versions that cannot have what they ask for.
#[derive(Debug, Default)]
struct Lacking {
    /// The first ones, each with why.
    named: Vec<(Arc<Version>, NoDevice)>,
    /// How many there are beside them.
    more: usize,
}

impl Deployments {
    /// Tells in the log which stored models ask for devices that are not there, as after a
    /// start without a driver. Calls of them are refused. Blocks, and ends early where
    /// `over` is cancelled.
    pub fn tell_without_devices(&self, over: &CancellationToken) {
        let Lacking { named, more } = self.without_devices(over);
        for (version, none) in named {
            let (model, version) = (&version.name, &version.version);
            tracing::warn!(%model, version, "a stored model cannot be served: {none}");
        }
        if more > 0 {
            tracing::warn!(more, "further stored models cannot be served for want of accelerators");
        }
    }

    fn without_devices(&self, over: &CancellationToken) -> Lacking {
        let mut lacking = Lacking::default();
        let served = self.read().served();
        for version in served.into_iter().take_while(|_| !over.is_cancelled()) {
            // One that cannot be read is told when it is called.
            let Ok(config) = self.loader.read_config(&version.name, &version.version) else {
                continue;
            };
            let Err(none) = self.loader.devices().check(&config.limits.accelerators) else {
                continue;
            };
            match lacking.named.len() < limit("lacking_named", NAMED_MAX) {
                true => lacking.named.push((version, none)),
                false => lacking.more += 1,
            }
        }
        lacking
    }

    /// Gives somebody what a package is to be tried on, once it is free: replicas that
    /// nobody calls make room for it. `waits` is called once, before it waits.
    pub async fn devices_to_try(
        &self,
        asked: &Accelerators,
        waits: impl FnOnce(&NoDevice),
    ) -> Result<Given, NoDevice> {
        self.devices_within(TIMEOUT, asked, waits).await
    }

    async fn devices_within(
        &self,
        timeout: Duration,
        asked: &Accelerators,
        waits: impl FnOnce(&NoDevice),
    ) -> Result<Given, NoDevice> {
        let devices = self.loader.devices();
        let until = Instant::now() + limit("device_wait", timeout);
        let mut waits = Some(waits);
        loop {
            match devices.give(asked) {
                Err(taken) if !taken.is_for_ever() && Instant::now() < until => {
                    if let Some(waits) = waits.take() {
                        waits(&taken);
                    }
                }
                given => return given,
            }
            let machine = self.pools.machine();
            let needed = Amount { accelerators: asked.count, ..Amount::default() };
            self.make_room(machine, &machine.without_devices(needed));
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Caller;
    use crate::deploy::{CLUSTER_LOCAL, DeploymentDetail, Loader, NODEPOOL_DEFAULT};
    use crate::devices::{Device, Devices};
    use crate::package::config::ModelName;
    use crate::package::folder::CONFIG_PATH;
    use crate::store::{DeploymentRow, Store, VersionFile, VersionRow};
    use crate::worker::OneShot;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tempfile::TempDir;

    /// With these versions, each of a model and with so many accelerators that it asks for.
    fn deployments(
        scratch: &TempDir,
        devices: Devices,
        versions: &[(String, &str, u32)],
    ) -> Deployments {
        let run = scratch.path().join("run");
        std::fs::create_dir_all(&run).unwrap();
        let store = Arc::new(Store::open(&scratch.path().join("data")).unwrap());
        if store.users().unwrap().iter().all(|user| user.id != "alice") {
            store.add_user("alice").unwrap();
        }
        for (model, id, count) in versions {
            let name = ModelName::new("alice", "main", model).unwrap();
            store.ensure_app("alice", "main").unwrap();
            store.ensure_model(&name, "").unwrap();
            let config = format!(
                "model: {{id: {model}, model_type_id: text-to-text}}\n\
                 inference_compute_info: {{num_accelerators: {count}}}\n"
            );
            let mut files = [VersionFile::of(CONFIG_PATH, config.as_bytes())];
            let version = VersionRow {
                name,
                id: (*id).to_owned(),
                number: 0,
                created_at: 0,
                model_type_id: String::new(),
                concepts: 0,
                methods: String::new(),
                bytes: files.iter().map(|file| file.bytes).sum(),
            };
            store.add_version(&version, &mut files).unwrap();
        }
        let one_shot = OneShot::of_this_program();
        let loader = Loader::compiling_with(one_shot.clone(), store, run);
        let accelerators = devices.count();
        let machine = Amount { cpu_millis: 2000, memory_bytes: 4 << 30, accelerators };
        Deployments::open(loader.with_devices(devices, one_shot), machine).unwrap()
    }

    fn asking(models: usize) -> Vec<(String, &'static str, u32)> {
        (0..models).map(|number| (format!("m{number:02}"), "v", 1)).collect()
    }

    fn device() -> Devices {
        Devices::of(vec![Device {
            id: "GPU-1".to_owned(),
            name: "NVIDIA-A10G".to_owned(),
            memory_bytes: 1 << 30,
            capability: None,
            nodes: vec![],
        }])
    }

    #[test]
    fn models_that_can_have_no_device_are_named_and_of_many_some() {
        let over = CancellationToken::new();
        let scratch = TempDir::new().unwrap();
        let all = deployments(&scratch, Devices::default(), &asking(NAMED_MAX + 2));
        let Lacking { named, more } = all.without_devices(&over);
        assert_eq!((named.len(), more), (NAMED_MAX, 2));
        assert_eq!(named[0].0.name.id(), "m00");
        assert!(named[0].1.to_string().starts_with("1 accelerator asked for"), "{}", named[0].1);
        over.cancel();
        assert!(all.without_devices(&over).named.is_empty());

        let (scratch, over) = (TempDir::new().unwrap(), CancellationToken::new());
        assert!(
            deployments(&scratch, device(), &asking(2)).without_devices(&over).named.is_empty()
        );
    }

    /// A deployment goes on with what it pins.
    #[test]
    fn what_a_deployment_pins_is_named_as_well() {
        let scratch = TempDir::new().unwrap();
        let versions = [("m".to_owned(), "old", 1), ("m".to_owned(), "new", 0)];
        let all = deployments(&scratch, device(), &versions);
        let row = DeploymentRow {
            user_id: "alice".to_owned(),
            id: "pinned".to_owned(),
            created_at: 0,
            modified_at: 0,
            model: ModelName::new("alice", "main", "m").unwrap(),
            version_id: Some("old".to_owned()),
            cluster_id: CLUSTER_LOCAL.to_owned(),
            nodepool_id: NODEPOOL_DEFAULT.to_owned(),
            detail: String::new(),
        };
        let said = DeploymentDetail { replicas_max: 1, ..DeploymentDetail::default() };
        all.deploy(&Caller::operator(), row, &said).unwrap();
        drop(all);
        // The device has gone since.
        let (all, over) =
            (deployments(&scratch, Devices::default(), &[]), CancellationToken::new());
        let named = all.without_devices(&over).named;
        assert_eq!(named.iter().map(|(v, _)| v.version.as_str()).collect::<Vec<_>>(), ["old"]);
    }

    /// What others have may be free in a moment, and whoever uploads is told that this is so; of
    /// a shorter while, for the test's sake.
    #[tokio::test]
    async fn an_upload_waits_a_minute_for_accelerators_and_no_longer() {
        let scratch = TempDir::new().unwrap();
        let all = deployments(&scratch, device(), &[]);
        let asked = Accelerators { count: 1, ..Accelerators::default() };
        let told = AtomicUsize::new(0);
        let wait = |timeout| {
            all.devices_within(timeout, &asked, |_| {
                told.fetch_add(1, Ordering::Relaxed);
            })
        };
        assert_eq!(TIMEOUT, Duration::from_secs(60));
        let short = AGAIN_AFTER * 2;
        let held = all.loader().devices().give(&asked).unwrap();
        let began = Instant::now();
        let refused = wait(short).await.unwrap_err();
        assert!(!refused.is_for_ever(), "{refused}");
        assert!(began.elapsed() >= short);
        assert_eq!(told.load(Ordering::Relaxed), 1);

        let free = async {
            tokio::time::sleep(short).await;
            drop(held);
        };
        let (given, ()) = tokio::join!(wait(TIMEOUT), free);
        assert_eq!(given.unwrap().devices().count(), 1);
        assert_eq!(told.load(Ordering::Relaxed), 2);
    }
}
