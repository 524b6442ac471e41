//! What was measured, for a person or a program.

use super::Side;
use super::figures::{Figures, Times};
use super::load::{Load, Pace};
use crate::cli::{BenchArgs, BenchFunction};
use crate::text::printable;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::time::Duration;

/// Parts of the times that are told.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("most", 1.)];

const NAME_CHARS: usize = 16;
const FIGURE_CHARS: usize = 13;

pub(super) struct Report<'a> {
    pub(super) args: &'a BenchArgs,
    pub(super) load: Load,
    pub(super) connections: usize,
    pub(super) rounds: u32,
    pub(super) sides: &'a [Side],
}

/// One kind of times.
type Kind = fn(&Figures) -> &Times;

/// A line of figures: what it is, of each side, and how the second compares to the first.
struct Line {
    name: String,
    figures: Vec<String>,
    ratio: Option<f64>,
}

impl Report<'_> {
    pub(super) fn print(&self, as_json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if as_json {
            return writeln!(out, "{}", self.json());
        }
        writeln!(out, "{}", self.heading())?;
        if self.sides.len() > 1 {
            write!(out, "  {:NAME_CHARS$}", "")?;
            for name in ["A", "B", "B / A"] {
                write!(out, "{name:>FIGURE_CHARS$}")?;
            }
            writeln!(out)?;
        }
        for Line { name, figures, ratio } in self.lines() {
            write!(out, "  {name:NAME_CHARS$}")?;
            for figure in figures {
                write!(out, "{figure:>FIGURE_CHARS$}")?;
            }
            if let Some(ratio) = ratio {
                write!(out, "{ratio:>FIGURE_CHARS$.2}")?;
            }
            writeln!(out)?;
        }
        for Side { label, figures, .. } in self.sides {
            for (error, count) in figures.errors() {
                writeln!(out, "  {count} calls of {label} failed: {}", printable(error))?;
            }
            if figures.not_made() > 0 {
                writeln!(
                    out,
                    "  {} calls of {label} were due and not made: more callers are needed, \
                     --concurrency, or a faster server",
                    figures.not_made()
                )?;
            }
        }
        Ok(())
    }

    fn heading(&self) -> String {
        let BenchArgs { function, duration, warm_up, .. } = self.args;
        let whom = match self.sides {
            [a, b] => format!("A {} and B {}, {} rounds in turns", a.label, b.label, self.rounds),
            sides => sides.iter().map(|side| side.label.as_str()).collect(),
        };
        let callers = self.load.concurrency;
        let pace = match self.load.pace {
            Pace::Closed => format!("{callers} at a time"),
            Pace::Open { rate } => format!("{rate} a second due, at most {callers} at a time"),
        };
        format!(
            "{}: {}, {pace}, {} connections, {duration:?} after {warm_up:?} to warm up",
            printable(&whom),
            function.as_str(),
            self.connections,
        )
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = vec![
            self.count("calls", Figures::calls),
            self.count("failed", Figures::failed),
            self.line("calls a second", Figures::calls_per_second, |rate| format!("{rate:.1}")),
        ];
        if !matches!(self.args.function, BenchFunction::Predict) {
            let rate = |rate: f64| format!("{rate:.1}");
            lines.push(self.line("outputs a second", Figures::outputs_per_second, rate));
        }
        let each = match self.args.function {
            BenchFunction::Predict | BenchFunction::Generate => "between outputs",
            BenchFunction::Stream => "each message",
        };
        let kinds: [(&str, Kind); 4] = [
            ("whole call", |figures| &figures.whole),
            ("first output", |figures| &figures.first),
            (each, |figures| &figures.each),
            ("sent too late", |figures| &figures.late),
        ];
        for (kind, times) in kinds {
            let is_predicted = matches!(self.args.function, BenchFunction::Predict);
            let is_told = self.sides.iter().any(|side| !times(&side.figures).is_empty());
            if !is_told || (is_predicted && kind == "first output") {
                continue;
            }
            lines.push(Line { name: kind.to_owned(), figures: Vec::new(), ratio: None });
            for (name, part) in QUANTILES {
                let value = |figures: &Figures| times(figures).quantile(part).as_secs_f64();
                lines.push(self.line(&format!("  {name}"), value, shown));
            }
        }
        lines
    }

    fn count(&self, name: &str, value: impl Fn(&Figures) -> u64) -> Line {
        let figures = self.sides.iter().map(|side| value(&side.figures).to_string()).collect();
        Line { name: name.to_owned(), figures, ratio: None }
    }

    fn line(
        &self,
        name: &str,
        value: impl Fn(&Figures) -> f64,
        shown: impl Fn(f64) -> String,
    ) -> Line {
        let values: Vec<f64> = self.sides.iter().map(|side| value(&side.figures)).collect();
        Line {
            name: name.to_owned(),
            ratio: ratio(&values),
            figures: values.into_iter().map(shown).collect(),
        }
    }

    fn json(&self) -> Value {
        let sides = self.sides.iter().map(of_side);
        let ratio = |value: &dyn Fn(&Figures) -> f64| {
            let values: Vec<f64> = self.sides.iter().map(|side| value(&side.figures)).collect();
            ratio(&values)
        };
        let quantile = |part| move |figures: &Figures| figures.whole.quantile(part).as_secs_f64();
        json!({
            "function": self.args.function.as_str(),
            "concurrency": self.load.concurrency,
            "connections": self.connections,
            "rate": match self.load.pace {
                Pace::Closed => None,
                Pace::Open { rate } => Some(rate),
            },
            "duration_s": self.args.duration.as_secs_f64(),
            "warm_up_s": self.args.warm_up.as_secs_f64(),
            "rounds": self.rounds,
            "sides": sides.collect::<Vec<_>>(),
            "second_to_first": {
                "calls_per_second": ratio(&Figures::calls_per_second),
                "outputs_per_second": ratio(&Figures::outputs_per_second),
                "whole_p50": ratio(&quantile(0.5)),
                "whole_p99": ratio(&quantile(0.99)),
            },
        })
    }
}

/// The second to the first, where there are two.
fn ratio(values: &[f64]) -> Option<f64> {
    match values {
        [first, second] if *first > 0. => Some(second / first),
        _ => None,
    }
}

fn of_side(side: &Side) -> Value {
    let Side { label, figures, .. } = side;
    let errors = figures.errors().map(|(text, count)| json!({ "text": text, "calls": count }));
    json!({
        "of": label,
        "calls": figures.calls(),
        "outputs": figures.outputs(),
        "failed": figures.failed(),
        "not_made": figures.not_made(),
        "errors": errors.collect::<Vec<_>>(),
        "calls_per_second": figures.calls_per_second(),
        "outputs_per_second": figures.outputs_per_second(),
        "whole_us": of_times(&figures.whole),
        "first_output_us": of_times(&figures.first),
        "each_output_us": of_times(&figures.each),
        "sent_late_us": of_times(&figures.late),
    })
}

fn of_times(times: &Times) -> Value {
    if times.is_empty() {
        return Value::Null;
    }
    let micros = |time: Duration| time.as_nanos() as f64 / 1000.;
    let told = QUANTILES.map(|(name, part)| (name.to_owned(), micros(times.quantile(part)).into()));
    let mut told: serde_json::Map<String, Value> = told.into_iter().collect();
    told.insert("mean".to_owned(), micros(times.mean()).into());
    Value::Object(told)
}

fn shown(seconds: f64) -> String {
    match seconds {
        s if s >= 1. => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.1} us", s * 1e6),
    }
}
