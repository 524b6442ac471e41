//! Promises about the world itself.

use ringfence_tests::{Client, Host, block_on, collect, params, request, text_input};
use serde_json::json;
use std::path::Path;

/// A component that was built for 0.1.0 when 0.1.0 was new. It is never built
/// again: whatever the host becomes, it has to answer as it did.
#[test]
fn a_component_of_the_first_version_keeps_answering() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/echo-0.1.0");
    let host = Host::serve(&[fixture.to_str().unwrap()]);
    block_on(async {
        let client = Client::connect(host.base(), &host.pat()).await;
        let predicted = client.predict("echo-0-1-0", vec![text_input("one two")]).await;
        assert_eq!(predicted.text(), "one two");
        let asked =
            params(request("echo-0-1-0", vec![text_input("one two")]), json!({ "chunk": 1 }));
        assert_eq!(client.generate_all(asked.clone()).await.len(), 2);
        let streamed = collect(client.stream(tokio_stream::once(asked)).await).await;
        assert_eq!(streamed[0].text(), "one two");
    });
}
