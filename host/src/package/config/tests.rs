//! What `config.yaml` is accepted, what is refused, and in which words.

use super::*;
use crate::limits::Accelerators;
use std::path::Path;
use std::time::Duration;

fn refused(text: &str) -> String {
    match Config::parse(text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(error) => error.to_string(),
    }
}

fn accepted(text: &str) -> Config {
    Config::parse(text).unwrap()
}

#[test]
fn an_id_is_all_that_has_to_be_said() {
    let config = accepted("model:\n  id: echo\n");
    assert_eq!(config.name.to_string(), "local/main/echo");
    assert_eq!(config.model_type_id, "any-to-any");
    assert_eq!(config.limits, Limits::default());
    assert_eq!((config.limits.cpu_millis, config.limits.memory_bytes_max), (1000, 1 << 30));
    assert_eq!(config.accelerators(), None);
}

#[test]
fn every_key_is_understood() {
    let config = accepted(
        r#"
model: {id: m, user_id: alice, app_id: lab, model_type_id: visual-classifier, description: words}
build_info: {python_version: 3.11, platform: linux/amd64, dereference_symlinks: false}
inference_compute_info:
  cpu_limit: 500m
  cpu_memory: 1500Mi
  cpu_requests: 0.25
  cpu_memory_requests: 1Gi
  num_accelerators: "2"
  accelerator_type: ["NVIDIA-*"]
  accelerator_memory: 18Gi
  accelerator_topology: [nvlink]
compute: {instance: a10g, cloud: aws, region: us-east-1, num_gpus: 1}
checkpoints:
  type: huggingface
  repo_id: facebook/detr-resnet-50
  hf_token: hf_CANARY
  when: build
  allowed_file_patterns: "*.json"
  ignore_file_patterns: ["*.bin", "*.pth"]
concepts:
  - {id: 0, name: cat}
  - {id: 1, name: "dog "}
num_threads: 4
secrets:
  - {id: key, env_var: KEY, type: env, value: secret_CANARY, description: words}
mcp_server: {command: uvx, args: [a, b]}
streaming_video_consumer: true
toolkit: [a]
something_of_theirs: 1
ringfence:
  isolation: call
  call_timeout: 500ms
  max_fuel_per_call: 1000000
  max_concurrency: 3
  max_output_bytes: 1Mi
  engine: tract
  graphs: {big/digits: digits, old: false}
"#,
    );
    assert_eq!(config.name.to_string(), "alice/lab/m");
    assert_eq!(config.build_info.python_version.as_deref(), Some("3.11"));
    assert_eq!(config.limits.cpu_millis, 500);
    assert_eq!(config.limits.memory_bytes_max, 1500 << 20);
    assert_eq!(config.compute.cpu_requests_millis, Some(250));
    assert_eq!(config.compute.memory_requests_bytes, Some(1 << 30));
    let accelerators = config.accelerators().unwrap();
    assert_eq!((accelerators.count, accelerators.memory_bytes), (2, Some(18 << 30)));
    assert_eq!(
        (&accelerators.types, &accelerators.topology),
        (&vec!["NVIDIA-*".into()], &vec!["nvlink".into()])
    );
    let checkpoints = config.checkpoints.clone().unwrap();
    assert_eq!(checkpoints.when, CheckpointStage::Build);
    assert_eq!(checkpoints.hf_token.as_ref().map(Secret::reveal), Some("hf_CANARY"));
    assert_eq!(
        (checkpoints.allowed_file_patterns.len(), checkpoints.ignore_file_patterns.len()),
        (1, 2)
    );
    assert_eq!(config.concepts[0], ConfigConcept { id: "0".into(), name: "cat".into() });
    assert_eq!(config.concepts[1].name, "dog ");
    assert_eq!(config.num_threads, Some(4));
    assert_eq!(config.secrets[0].env_var, "KEY");
    assert_eq!(config.limits.call_timeout, Duration::from_millis(500));
    assert_eq!(config.limits.fuel_per_call_max, Some(1_000_000));
    assert_eq!(config.limits.concurrency_max, 3);
    assert_eq!(config.limits.output_bytes_max, 1 << 20);
    assert_eq!(config.graphs.len(), 2);
    assert!(
        config.graphs.contains(&GraphRule { path: "old".into(), action: GraphAction::LeaveOut })
    );
    assert_eq!(config.warnings, Vec::<String>::new());
    assert!(!format!("{config:?}").contains("CANARY"));
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn real_files_are_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/configs");
    let Ok(files) = std::fs::read_dir(&folder) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", folder.display());
        eprintln!("skipped: there is no {}", folder.display());
        return;
    };
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // Half a byte, in files that work where nothing reads it: the only
        // refusal that a real file gets.
        let text = match text.contains("cpu_memory: \"500m\"") {
            true => {
                assert!(refused(&text).contains("did you mean \"500Mi\"?"), "{name}");
                text.replace("cpu_memory: \"500m\"", "cpu_memory: \"500Mi\"")
            }
            false => text,
        };
        let config = Config::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let asks = text.contains("num_accelerators: 1")
            || ["t4", "A10G", "a10g", "l40s"]
                .iter()
                .any(|gpu| text.contains(&format!("instance: {gpu}")));
        assert_eq!(config.accelerators().is_some(), asks, "{name}");
        assert_same_values(&config, &serde_yaml::from_str(&text).unwrap(), &name);
        assert!(fits_schema(&text), "{name} is not as the schema says");
        assert_eq!(config.warnings, Vec::<String>::new(), "{name}");
        count += 1;
    }
    assert!(count >= 20, "only {count} files");
}

/// What another reader of YAML makes of the same file.
fn assert_same_values(config: &Config, yaml: &serde_yaml::Value, name: &str) {
    let text = |value: &serde_yaml::Value| match value {
        serde_yaml::Value::String(text) => Some(text.clone()),
        serde_yaml::Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let model = &yaml["model"];
    assert_eq!(Some(config.name.id()), model["id"].as_str(), "{name}");
    for (ours, key) in [
        (config.name.user_id(), "user_id"),
        (config.name.app_id(), "app_id"),
        (config.model_type_id.as_str(), "model_type_id"),
    ] {
        if let Some(theirs) = text(&model[key]) {
            assert_eq!(ours, theirs, "{name}: {key}");
        }
    }
    let compute = &yaml["inference_compute_info"];
    let quantity =
        |key: &str| text(&compute[key])?.parse::<crate::package::quantity::Quantity>().ok();
    if let Some(cpu) = quantity("cpu_limit") {
        assert_eq!(cpu.cpu_millis(), Ok(config.limits.cpu_millis), "{name}");
    }
    if let Some(memory) = quantity("cpu_memory") {
        assert_eq!(memory.bytes(), Ok(config.limits.memory_bytes_max), "{name}");
    }
    let repo = config.checkpoints.as_ref().map(|checkpoints| checkpoints.repo_id.as_str());
    assert_eq!(repo, yaml["checkpoints"]["repo_id"].as_str(), "{name}");
    let concepts = yaml["concepts"].as_sequence().map_or(0, Vec::len);
    assert_eq!(config.concepts.len(), concepts, "{name}");
    for (ours, theirs) in
        config.concepts.iter().zip(yaml["concepts"].as_sequence().into_iter().flatten())
    {
        assert_eq!(Some(&ours.id), text(&theirs["id"]).as_ref(), "{name}");
        assert_eq!(Some(&ours.name), text(&theirs["name"]).as_ref(), "{name}");
    }
    let secrets = yaml["secrets"].as_sequence().map_or(0, Vec::len);
    assert_eq!(config.secrets.len(), secrets, "{name}");
}

/// MEM-14, PKG-15, PKG-16, PKG-18 and PKG-19.
#[test]
fn errors_name_the_key_the_line_and_the_fix() {
    let compute = |line: &str| format!("model: {{id: m}}\ninference_compute_info:\n  {line}\n");
    for (line, expected) in [
        (
            "cpu_memory: 13GiB",
            "config.yaml:3:15: `inference_compute_info.cpu_memory`: \"13GiB\" is not a quantity; did you mean \"13Gi\"?",
        ),
        (
            "cpu_memory: 1",
            "config.yaml:3:15: `inference_compute_info.cpu_memory`: \"1\" is less than \"1Mi\"; did you mean \"1Mi\"?",
        ),
        ("cpu_memory: 500m", "(m is a thousandth); did you mean \"500Mi\"?"),
        ("cpu_memory: 64Ki", "\"64Ki\" is less than \"1Mi\"; did you mean \"64Mi\"?"),
        ("accelerator_memory: 18", "\"18\" is less than \"1Mi\"; did you mean \"18Gi\"?"),
        ("cpu_memory: -5Gi", "\"-5Gi\" must be more than zero"),
        ("cpu_memory: \"0\"", "\"0\" must be more than zero"),
        ("cpu_memory: 13 Gi", "did you mean \"13Gi\"?"),
        ("cpu_memory: 1e30Gi", "\"1e30Gi\" is not a quantity"),
        (
            "cpu_memory: [1Gi]",
            "config.yaml:3:15: `inference_compute_info.cpu_memory`: is a list; write one value",
        ),
        ("cpu_limit: yes", "\"yes\" is not a quantity"),
        ("cpu_limit: 0x10", "\"0x10\" is not a quantity"),
        ("cpu_limit: 1_000", "\"1_000\" is not a quantity"),
        ("cpu_limit: 1:30", "\"1:30\" is not a quantity"),
        ("cpu_limit: .inf", "\".inf\" is not a quantity"),
        ("cpu_limit: {a: 1}", "is a mapping; write one value"),
        ("num_accelerators: -1", "\"-1\" is not a whole number from 0 to 1024"),
        ("num_accelerators: 1.5", "\"1.5\" is not a whole number"),
        ("accelerator_type: [\"NVIDIA-[\"]", "is no pattern for the names of devices"),
        (
            "accelerator_type: NVIDIA-A10G",
            "`inference_compute_info.accelerator_type`: is not a list",
        ),
        (
            "cpu_memry: 1Gi",
            "`inference_compute_info.cpu_memry`: is not a key; did you mean `cpu_memory`?",
        ),
    ] {
        let message = refused(&compute(line));
        assert!(message.contains(expected), "{line}: {message}");
    }
    for (text, expected) in [
        ("", "config.yaml:1:1: `model`: is missing; write `model:`"),
        ("model:\n", "`model.id`: is missing"),
        ("- a\n", "`config.yaml`: is not a mapping"),
        ("model: echo\n", "config.yaml:1:8: `model`: is not a mapping"),
        ("model:\n  user_id: a\n", "`model.id`: is missing; write a name"),
        ("model: {id: ''}", "`model.id`: \"\" is empty"),
        ("model: {id: ../../etc}", "begins with a dot"),
        ("model: {id: a/b c}", "\"a/b c\" has other characters"),
        ("model: {id: m}\ninference_compute_inf: {}\n", "did you mean `inference_compute_info`?"),
        ("model: {id: m}\nModel: {id: m}\n", "did you mean `model`?"),
        ("model: {id: m}\nmodel: {id: n}\n", "config.yaml:2:1: the key \"model\" stands twice"),
        ("model: {id: m}\n---\nmodel: {id: n}\n", "there is a second document"),
        ("model: {id: m\n", "correct the YAML there"),
        ("model: !!python/object {id: m}\n", "config.yaml:1:"),
        (
            "model: {id: m}\nconcepts: [{id: a, name: b}, {id: a, name: c}]",
            "`concepts[1].id`: \"a\" is the id of an earlier concept",
        ),
        ("model: {id: m}\nconcepts: [{id: a, name: ''}]", "`concepts[0].name`: \"\" is empty"),
        ("model: {id: m}\nconcepts: [{id: \"a\\u0007\", name: b}]", "control characters"),
        ("model: {id: m}\nconcepts: [a]", "`concepts[0]`: is not a mapping"),
        ("model: {id: m}\ncheckpoints: {type: ftp, repo_id: a/b}", "is not a type of checkpoints"),
        ("model: {id: m}\ncheckpoints: {type: huggingface}", "`checkpoints.repo_id`: is missing"),
        ("model: {id: m}\ncheckpoints: {repo_id: ../..}", "is not a repository"),
        ("model: {id: m}\ncheckpoints: {repo_id: 'http://evil'}", "is not a repository"),
        ("model: {id: m}\ncheckpoints: {repo_id: a/b/c}", "is not a repository"),
        ("model: {id: m}\ncheckpoints: {repo_id: a/b, when: later}", "is not a stage"),
        ("model: {id: m}\nnum_threads: 0\n", "`num_threads`: \"0\" is not a whole number from 1"),
        ("model: {id: m}\nsecrets: [{id: a}]\n", "`secrets[0].env_var`: is missing"),
        (
            "model: {id: m}\nringfence: {isolation: nobody}",
            "`ringfence.isolation`: \"nobody\" is not an isolation; write \"call\" or \"caller\"",
        ),
        ("model: {id: m}\nringfence: {engine: torch}", "is not an engine"),
        ("model: {id: m}\nringfence: {call_timeout: 30}", "write a number and ms, s, m or h"),
        ("model: {id: m}\nringfence: {call_timeout: 2h}", "from \"1ms\" to \"1h\""),
        ("model: {id: m}\nringfence: {call_timeout: 0s}", "from \"1ms\" to \"1h\""),
        ("model: {id: m}\nringfence: {call_timeout: 99999999999999999999h}", "is not a time"),
        ("model: {id: m}\nringfence: {max_output_bytes: 2Gi}", "from \"1Ki\" to \"1Gi\""),
        ("model: {id: m}\nringfence: {max_concurrency: 0}", "from 1 to 1024"),
        (
            "model: {id: m}\nringfence: {batching: {max_size: 1}}",
            "is not a whole number from 2 to 1024",
        ),
        ("model: {id: m}\nringfence: {batching: {max_wait: 2s}}", "`ringfence.batching.max_wait`"),
        ("model: {id: m}\nringfence: {batching: 2}", "`ringfence.batching`"),
        ("model: {id: m}\nringfence: {batching: {size: 2}}", "`ringfence.batching.size`"),
        (
            "model: {id: m}\nringfence: {timeout: 1s}",
            "`ringfence.timeout`: is not a key; the keys here are",
        ),
        ("model: {id: m}\nringfence: {graphs: {a: ''}}", "is not a graph's name"),
    ] {
        let message = refused(text);
        assert!(message.contains(expected), "{text:?}: {message}");
    }
}

#[test]
fn all_problems_are_told_at_once_each_with_its_line_and_a_caret() {
    let text = "\
model:
  id: ../x
inference_compute_info:
  cpu_limit: two
  cpu_memoory: 1Gi
ringfence: {engine: torch, call_timeout: 9h}
";
    assert_eq!(
        refused(text),
        "\
config.yaml has 5 problems
config.yaml:2:7: `model.id`: \"../x\" begins with a dot; begin it with a letter or a digit
     2 |   id: ../x
       |       ^^^^
config.yaml:4:14: `inference_compute_info.cpu_limit`: \"two\" is not a quantity; write a number such as \"2\", \"500m\", \"1500Mi\" or \"13Gi\"
     4 |   cpu_limit: two
       |              ^^^
config.yaml:5:3: `inference_compute_info.cpu_memoory`: is not a key; did you mean `cpu_memory`?
     5 |   cpu_memoory: 1Gi
       |   ^^^^^^^^^^^^
config.yaml:6:21: `ringfence.engine`: \"torch\" is not an engine; write \"tract\" or \"onnxruntime\"
     6 | ringfence: {engine: torch, call_timeout: 9h}
       |                     ^^^^^
config.yaml:6:42: `ringfence.call_timeout`: \"9h\" is outside what is allowed; write from \"1ms\" to \"1h\"
     6 | ringfence: {engine: torch, call_timeout: 9h}
       |                                          ^^"
    );
}

#[test]
fn types_that_answer_with_concepts_have_to_list_them() {
    let message = refused("model: {id: m, model_type_id: visual-detector}\n");
    assert!(message.contains("`concepts`: is missing; a visual-detector answers"), "{message}");
    accepted("model: {id: m, model_type_id: visual-detector}\nconcepts: [{id: a, name: b}]\n");
    accepted("model: {id: m, model_type_id: visual-detector}\ncheckpoints: {repo_id: a/b}\n");
}

#[test]
fn what_is_left_to_defaults_or_has_no_effect_is_said_once() {
    let config = accepted(
        "model: {id: m}\nbuild_info: {image: a/b}\nmcp_server: {command: x}\nsecrets: [{id: a, env_var: B}]\n",
    );
    for note in [
        "no `model.app_id`: main",
        "no `model.model_type_id`: any-to-any",
        "no `cpu_limit`: 1 CPU",
        "no `cpu_memory`: 1Gi",
        "`build_info.image` has no effect: a component needs no image",
        "`mcp_server` has no effect: this host starts no MCP server",
        "`secrets` has no effect: a guest has no variables",
    ] {
        let said = config.notes.iter().filter(|line| *line == note).count();
        assert_eq!(said, 1, "{note} in {:?}", config.notes);
    }
    assert_eq!(config.notes.len(), 7, "{:?}", config.notes);
}

#[test]
fn anchors_aliases_and_merges_are_refused() {
    for text in [
        "model: &a {id: m}\n",
        "model: {id: &a m, user_id: *a}\n",
        "model: {<<: {id: m}}\n",
        "x: &x 1\nmodel: {id: m}\n",
    ] {
        let message = refused(text);
        assert!(message.contains("config.yaml:1:"), "{text}: {message}");
        assert!(message.contains("anchors, aliases and merge keys"), "{text}: {message}");
    }
}

#[test]
fn an_instance_with_an_accelerator_is_never_served_without() {
    for (instance, count) in
        [("t4", 1), ("A10G", 1), ("g5.xlarge", 1), ("cpu", 0), ("t3a.2xlarge", 0)]
    {
        let config = accepted(&format!("model: {{id: m}}\ncompute: {{instance: {instance}}}\n"));
        assert_eq!(config.limits.accelerators.count, count, "{instance}");
        assert!(config.warnings.is_empty());
    }
    let config = accepted("model: {id: m}\ncompute: {instance: mystery}\n");
    assert!(config.warnings[0].contains("\"mystery\" is not a known kind of machine"));
    let config = accepted("model: {id: m}\ncompute: {gpu: H100, num_gpus: 8}\n");
    assert_eq!(config.limits.accelerators.count, 8);
    // What else is said of the machine says nothing of that.
    let beside = |exact: &str, preset: &str| {
        let config = accepted(&format!(
            "model: {{id: m}}\ninference_compute_info: {{{exact}}}\ncompute: {{{preset}}}\n"
        ));
        (config.limits.accelerators.count, config.warnings.len())
    };
    assert_eq!(beside("cpu_limit: 1, cpu_memory: 1Gi", "instance: g5.xlarge"), (1, 0));
    assert_eq!(beside("cpu_limit: 1", "gpu: H100, num_gpus: 2"), (2, 0));
    assert_eq!(beside("cpu_limit: 1", "instance: mystery"), (0, 1));
    assert_eq!(beside("num_accelerators: 0", "instance: g5.xlarge"), (0, 0));
    assert_eq!(beside("num_accelerators: 2", "instance: g5.xlarge"), (2, 0));
}

/// As the SDK 12.5 expands `compute: {instance: cpu}` in what it uploads.
#[test]
fn an_empty_accelerator_memory_is_none() {
    let config = accepted(
        "model: {id: m}\ninference_compute_info: {cpu_limit: '4', cpu_memory: 16Gi, \
         num_accelerators: 0, accelerator_type: [], accelerator_memory: ''}\n",
    );
    assert_eq!(config.limits.accelerators, Accelerators::default());
}

/// I5: whatever is wrong with a file, its secrets are not in the error.
#[test]
fn errors_do_not_repeat_secrets() {
    for text in [
        "model: {id: m}\ncheckpoints: {repo_id: a/b, hf_token: \"hf_CANARY\\nX: y\"}",
        "model: {id: m}\ncheckpoints: {repo_id: 'https://u:hf_CANARY@h/a/b'}",
        "model: {id: m}\ncheckpoint: {hf_tokn: hf_CANARY}",
        "model: {id: m}\ncheckpoints: {repo_id: a/b, hf_token: [hf_CANARY]}",
        "model: {id: m}\ncheckpoints: {repo_id: a/b, hf_token: {hf_CANARY: 1}}",
        "model: {id: m}\ncheckpoints: {repo_id: a/b, hf_token: !secret hf_CANARY}",
        "model: {id: m}\ncheckpoints: {repo_id: a/b, hf_token: hf_CANARY\n",
        "model: {id: m}\ncheckpoints: hf_CANARY\n",
        "model: {id: m}\nsecrets: [hf_CANARY]\n",
        "model: {id: m}\nsecrets: [{id: a, env_var: B, value: [hf_CANARY]}]\n",
        "model: {id: m}\ncheckpoints:\n  hf_token: \"hf_CANARY\n",
        "model: {id: m}\ncheckpoints:\n  hf_token: \"\\q hf_CANARY\"\n",
        "model: {id: m}\ncheckpoints:\n  hf_token: *hf_CANARY\n",
        "model: {id: m}\ncheckpoints:\n  hf_token: hf_CANARY: b: c\n",
        "model: {id: m}\ncheckpoints:\n  hf_token: !!int hf_CANARY\n",
    ] {
        let message = refused(text);
        assert!(!message.contains("CANARY"), "{message}");
    }
}

#[test]
fn so_many_secrets_are_taken_and_so_many_problems_told() {
    let of = |secret: &str, count: usize| {
        format!("model: {{id: m}}\nsecrets: [{}]\n", vec![secret; count].join(", "))
    };
    let secret = "{id: a, env_var: A}";
    assert_eq!(accepted(&of(secret, 100)).secrets.len(), 100);
    let told = refused(&of(secret, 101));
    assert!(told.contains("`secrets[100]`: is one too many: there may be 100"), "{told}");
    // Each lacks an id and a variable.
    let told = refused(&of("{}", 60));
    assert!(told.starts_with("config.yaml has 50 problems\n"), "{told}");
}

#[test]
fn bombs_are_refused_at_once() {
    let start = std::time::Instant::now();
    let mut aliases = String::from("model: {id: m}\na: &a [x,x,x,x,x,x,x,x,x,x]\n");
    for (this, last) in ('b'..='z').zip('a'..='y') {
        aliases.push_str(&format!(
            "{this}: &{this} [*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last}]\n"
        ));
    }
    assert!(refused(&aliases).contains("aliases"));
    refused(&format!("model: {{id: m}}\nx: {}", "[".repeat(100_000)));
    refused(&format!("model: {{id: m}}\nx: {}", "- ".repeat(100_000)));
    refused(&format!("model: {{id: m}}\nx: [{}]", "a,".repeat(400_000)));
    refused(&format!("model: {{id: m}}\nx: &x {{y: 1}}\n{}", "? *x\n: 1\n".repeat(50_000)));
    assert!(refused(&"#".repeat(CONFIG_BYTES_MAX + 1)).contains("65536 are allowed"));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn no_input_makes_the_reader_panic() {
    let text = "model: {id: \"é\", user_id: &a b}\nconcepts:\n  - {id: *a, name: |\n    x\n}\nringfence: {<<: {engine: tract}}\n";
    for end in 0..text.len() {
        if let Some(part) = text.get(..end) {
            let _ = Config::parse(part);
        }
        let mut bytes = text.as_bytes().to_vec();
        for byte in [0, b'\t', b'{', b'&', b'!', b'%', 0x7f] {
            if let Some(place) = bytes.get_mut(end) {
                *place = byte;
            }
            let _ = Config::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}

/// Whether an editor that follows the schema finds nothing wrong.
fn fits_schema(text: &str) -> bool {
    crate::yaml::fits(schema(), text)
}

#[test]
fn the_schema_accepts_and_refuses_what_the_host_does() {
    for text in [
        "model: {id: m}",
        "model: {id: 7, user_id: a.b, model_type_id: a-type-of-mine}\nanything: [1]",
        "model: {id: m, of_theirs: 1}\nbuild_info:\ninference_compute_info: {cpu_limit: 1.5, cpu_memory: 1500Mi}",
        "model: {id: m}\nringfence: {call_timeout: 500ms, graphs: {a/b: c, d: false}, max_output_bytes: 1Mi}",
        "model: {id: m}\ncheckpoints: {repo_id: a/b, allowed_file_patterns: '*', ignore_file_patterns: [a]}",
        "model: {id: m}\nconcepts: [{id: 0, name: a}]\nnum_threads: '4'\nsecrets: [{id: a, env_var: B}]",
    ] {
        accepted(text);
        assert!(fits_schema(text), "{text}");
    }
    for text in [
        "{}",
        "model: {id: a b}",
        "model: [m]",
        "model: {id: m}\ninference_compute_info: {cpu_limit: two}",
        "model: {id: m}\ninference_compute_info: {cpu_memory: 13Gig}",
        "model: {id: m}\ninference_compute_info: {cpu_memory: -1Gi}",
        "model: {id: m}\ninference_compute_info: {cpu_limit: 0}",
        "model: {id: m}\ninference_compute_info: {num_accelerators: -1}",
        "model: {id: m}\ninference_compute_info: {accelerator_type: NVIDIA-*}",
        "model: {id: m}\ncheckpoints: {repo_id: a, when: later}",
        "model: {id: m}\ncheckpoints: {repo_id: a, type: git}",
        "model: {id: m}\nconcepts: {id: 0, name: a}",
        "model: {id: m}\nnum_threads: 0",
        "model: {id: m}\nringfence: {isolation: nobody}",
        "model: {id: m}\nringfence: {call_timeout: 5}",
        "model: {id: m}\nringfence: {max_fuel_per_call: 0}",
        "model: {id: m}\nringfence: {of_nobody: 1}",
    ] {
        refused(text);
        assert!(!fits_schema(text), "{text}");
    }
}

#[test]
fn tags_are_refused_where_they_stand() {
    for (text, line) in [
        ("model: {id: !!str 5}", "1:"),
        ("model: !!map {id: m}", "1:"),
        ("model:\n  id: m\nconcepts: !!seq []", "3:"),
        ("!<tag:yaml.org,2002:map> {model: {id: m}}", "1:"),
        ("model: {id: m}\n!!str toolkit: x", "2:"),
        ("model: {id: ! m}", "1:"),
    ] {
        let refused = refused(text);
        assert!(refused.starts_with(&format!("config.yaml:{line}")), "{text}: {refused}");
        assert!(refused.contains("tags such as !!str are not read"), "{text}: {refused}");
    }
    accepted("model: {id: m}\ntoolkit: 'not !!str a tag'");
}
