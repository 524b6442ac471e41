//! `ringfence bench`: load on a running host, and what its callers see of it.
//!
//! Owns what is measured of whom, and in which turns: where two are compared, each round is
//! of both, so that whatever else the machine does is shared by them. Any server that
//! speaks the protocol can be one of them.

mod codec;
mod figures;
mod load;
mod report;
mod target;

use super::client::ModelRef;
use super::{BenchArgs, GlobalArgs, Usage, request};
use anyhow::{Context, bail};
use figures::Figures;
use load::{Load, Pace};
use report::Report;
use std::sync::Arc;
use std::time::Duration;
use target::{Call, Target};

/// Calls in flight of an open loop, where nothing else is said.
const OPEN_CONCURRENCY: usize = 256;

/// Connections that callers share, where nothing else is said.
const CONNECTIONS: usize = 16;

/// One of those that are measured.
struct Side {
    label: String,
    target: Arc<Target>,
    figures: Figures,
}

pub(super) fn run(args: &BenchArgs, global: &GlobalArgs) -> anyhow::Result<()> {
    let pace = match args.rate {
        Some(rate) => Pace::Open { rate },
        None => Pace::Closed,
    };
    let concurrency = match (args.concurrency, pace) {
        (Some(concurrency), _) => concurrency.get(),
        (None, Pace::Closed) => 1,
        (None, Pace::Open { .. }) => OPEN_CONCURRENCY,
    };
    let connections = args.connections.map_or(concurrency.min(CONNECTIONS), |number| number.get());
    let load = Load { pace, concurrency };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let mut sides = Vec::new();
        for (label, global, model) in sides_of(args, global)? {
            let message = request::of_bench(args, &model)?;
            let call = Call::of(args.function, args.messages.get(), &message);
            let target = Target::connect(&global, connections, call).await?;
            sides.push(Side { label, target: Arc::new(target), figures: Figures::new()? });
        }
        let rounds = if sides.len() > 1 { args.rounds.get() } else { 1 };
        if !args.warm_up.is_zero() {
            for side in &sides {
                load.run(&side.target, args.warm_up).await?;
            }
        }
        for round in 0..rounds {
            // Nobody is always the one who comes first.
            let turn = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for place in turn {
                if let Some(side) = sides.get_mut(place) {
                    let time = args.duration / rounds;
                    side.figures.add(&load.run(&side.target, time).await?)?;
                }
            }
        }
        let report = Report { args, load, connections, rounds, sides: &sides };
        report.print(global.json)?;
        for side in &sides {
            if side.figures.calls() == 0 {
                let why = side.figures.errors().next();
                let (why, _) = why.context("no call was over in the time; give --duration")?;
                bail!("no call of {} succeeded: {why}", side.label);
            }
            let (failed, calls) = (side.figures.failed(), side.figures.calls());
            if failed > calls {
                bail!("more calls of {} failed ({failed}) than succeeded ({calls})", side.label);
            }
        }
        Ok(())
    })
}

/// Whom to measure: the model, or both that are compared.
fn sides_of(
    args: &BenchArgs,
    global: &GlobalArgs,
) -> anyhow::Result<Vec<(String, GlobalArgs, ModelRef)>> {
    if args.compare.is_empty() {
        let model = args.model.clone().context("name the model to call")?;
        return Ok(vec![(model.label(), global.clone(), model)]);
    }
    let side = |text: &String| -> anyhow::Result<_> {
        if text.contains("://") {
            let global = GlobalArgs { base: Some(text.clone()), ..global.clone() };
            let none = || Usage(format!("name the model to call at {text}, before --compare"));
            return Ok((text.clone(), global, args.model.clone().ok_or_else(none)?));
        }
        let model: ModelRef = text.parse().map_err(|error| {
            Usage(format!("--compare takes addresses such as http://HOST:PORT, or models: {error}"))
        })?;
        Ok((model.label(), global.clone(), model))
    };
    args.compare.iter().map(side).collect()
}

/// `5s`, `500ms` or `1m`.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write 500ms, 5s or 1m");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1000.,
        "s" => number,
        "m" => number * 60.,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        let millis = |text: &str| time(text).map(|time| time.as_millis());
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis("1.5s"), Ok(1500));
        assert_eq!(millis("2m"), Ok(120_000));
        for wrong in ["", "5", "s", "-1s", "1h", "1e99s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
