#!/usr/bin/env python3
"""Compute clusters, nodepools and deployments by the unmodified Clarifai SDK for Python, against a running server.

    sdk_compute.py --base http://HOST:PORT --pat PAT [--model echo] [--other scribe]

Makes the cluster `lab` of the user `local`, in it the nodepool `pool`, and on that a deployment of `--model`, which was
uploaded and answers text with the same text; calls it there, and deletes all three. `--other` is another model of
`local`, which the deployment does not serve.

Prints `ok NAME` for each check. Stops at the first that fails, with `failed NAME` and a traceback on standard error,
and exit code 1.
"""
import sys

from sdk import APP, USER, assert_equal, assert_refused, parser, play, text_of

CLUSTER, NODEPOOL, DEPLOYMENT = "lab", "pool", "model-in-lab"
# The keys that the SDK reads. It sends the token as `key`, which no answer may repeat.
CLUSTER_CONFIG = """\
compute_cluster:
  id: lab
  description: made by the SDK
  cloud_provider:
    id: local
  region: here
  managed_by: user
  cluster_type: dedicated
  visibility:
    gettable: 10
"""
NODEPOOL_CONFIG = """\
nodepool:
  id: pool
  description: made by the SDK
  instance_types:
    - id: small
      compute_info:
        cpu_limit: "1"
        cpu_memory: "512Mi"
  node_capacity_type:
    capacity_types: [1]
  min_instances: 1
  max_instances: 1
"""
DEPLOYMENT_CONFIG = """\
deployment:
  id: model-in-lab
  description: made by the SDK
  autoscale_config:
    min_replicas: 0
    max_replicas: 1
    traffic_history_seconds: 300
    scale_down_delay_seconds: 300
    scale_up_delay_seconds: 300
  worker:
    model:
      id: {model}
      model_version:
        id: {version}
      user_id: local
      app_id: main
  scheduling_choice: 4
  nodepools:
    - id: pool
      compute_cluster:
        id: lab
"""


class Scenario:
    """The checks, in the order in which they run; each goes on from the one before."""

    def __init__(self, sdk, arguments, folder):
        from clarifai.client.compute_cluster import ComputeCluster
        from clarifai.client.nodepool import Nodepool

        self.sdk, self.arguments, self.folder = sdk, arguments, folder
        self._cluster, self._nodepool = ComputeCluster, Nodepool

    def config(self, text):
        path = self.folder / "made.yaml"
        path.write_text(text)
        return str(path)

    def cluster(self):
        return self._cluster(compute_cluster_id=CLUSTER, user_id=USER, **self.sdk.where)

    def nodepool(self):
        return self._nodepool(nodepool_id=NODEPOOL, user_id=USER, **self.sdk.where)

    def call(self, name, **where):
        """Before 12 a call says where it runs, from 12 on the constructor does."""
        if self.sdk.major < 12:
            return self.sdk.model(name).predict_by_bytes(b"there", input_type="text", **where)
        return self.sdk.model(name, **where).predict_by_bytes(b"there", input_type="text")

    def assert_not_there(self, call, *words):
        """The SDK raises: with the status itself, or from 12 on with words of its own about it."""
        try:
            answer = call()
        except Exception as error:
            assert any(word in str(error) for word in words), f"{words} are not in {error!r}"
        else:
            raise AssertionError(f"no exception, but {answer!r}")

    def make_cluster(self):
        made = self.sdk.user().create_compute_cluster(self.config(CLUSTER_CONFIG), compute_cluster_id=CLUSTER)
        assert_equal(made.id, CLUSTER)

    def make_nodepool(self):
        made = self.cluster().create_nodepool(self.config(NODEPOOL_CONFIG), nodepool_id=NODEPOOL)
        assert_equal(made.id, NODEPOOL)

    def make_deployment(self):
        version = next(self.sdk.model(self.arguments.model).list_versions()).model_version.id
        config = self.config(DEPLOYMENT_CONFIG.format(model=self.arguments.model, version=version))
        made = self.nodepool().create_deployment(config, deployment_id=DEPLOYMENT)
        assert_equal(made.id, DEPLOYMENT)

    def there_a_cluster_is_listed_and_found(self):
        listed = list(self.sdk.user().list_compute_clusters())
        assert_equal([cluster.id for cluster in listed].count(CLUSTER), 1)
        found = self.sdk.user().compute_cluster(CLUSTER)
        assert_equal((found.id, found.user_id, found.region), (CLUSTER, USER, "here"))
        for cluster in [found, *listed]:
            assert self.arguments.pat not in str(cluster.compute_cluster_info), "an answer repeats the token"

    def there_a_nodepool_is_listed_and_found(self):
        listed = [nodepool.id for nodepool in self.cluster().list_nodepools()]
        assert_equal(listed.count(NODEPOOL), 1)
        found = self.cluster().nodepool(NODEPOOL)
        assert_equal((found.id, found.compute_cluster.id), (NODEPOOL, CLUSTER))
        assert_equal(found.instance_types[0].compute_info.cpu_memory, "512Mi")

    def there_a_deployment_is_listed_and_found(self):
        # The messages of 11.0 have no cluster here.
        filters = [{}, {"compute_cluster_id": CLUSTER}] if self.sdk.major >= 12 else [{}]
        for filter_by in filters:
            listed = [deployment.id for deployment in self.nodepool().list_deployments(filter_by)]
            assert_equal(listed.count(DEPLOYMENT), 1)
        found = self.nodepool().deployment(DEPLOYMENT)
        assert_equal((found.id, found.user_id), (DEPLOYMENT, USER))
        model = found.worker.model
        assert_equal((model.id, model.user_id, model.app_id), (self.arguments.model, USER, APP))
        assert_equal([nodepool.id for nodepool in found.nodepools], [NODEPOOL])

    def there_a_call_runs(self):
        name = self.arguments.model
        for where in ({"deployment_id": DEPLOYMENT}, {"compute_cluster_id": CLUSTER, "nodepool_id": NODEPOOL}):
            assert_equal(text_of(self.call(name, **where)), "there")

    def there_another_model_does_not_run(self):
        assert_refused(lambda: self.call(self.arguments.other, deployment_id=DEPLOYMENT))

    def nowhere_else_a_call_runs(self):
        name = self.arguments.model
        nowhere = {"compute_cluster_id": CLUSTER, "nodepool_id": "nowhere"}
        self.assert_not_there(lambda: self.call(name, **nowhere), "NODEPOOL_DOES_NOT_EXIST", "not found")
        nowhere = {"compute_cluster_id": "nowhere", "nodepool_id": NODEPOOL}
        self.assert_not_there(lambda: self.call(name, **nowhere), "DOES_NOT_EXIST", "not found")
        nowhere = {"deployment_id": "nowhere"}
        self.assert_not_there(lambda: self.call(name, **nowhere), "DEPLOYMENT_DOES_NOT_EXIST", "not found")

    def unmake_deployment(self):
        self.nodepool().delete_deployments([DEPLOYMENT])
        assert DEPLOYMENT not in [deployment.id for deployment in self.nodepool().list_deployments()]
        assert_refused(lambda: self.nodepool().deployment(DEPLOYMENT), "DEPLOYMENT_DOES_NOT_EXIST")

    def unmake_nodepool(self):
        self.cluster().delete_nodepools([NODEPOOL])
        assert_equal(list(self.cluster().list_nodepools()), [])
        assert_refused(lambda: self.cluster().nodepool(NODEPOOL), "NODEPOOL_DOES_NOT_EXIST")

    def unmake_cluster(self):
        self.sdk.user().delete_compute_clusters([CLUSTER])
        assert CLUSTER not in [cluster.id for cluster in self.sdk.user().list_compute_clusters()]
        assert_refused(lambda: self.sdk.user().compute_cluster(CLUSTER))

    def unmade_the_model_is_called_as_before(self):
        assert_equal(text_of(self.call(self.arguments.model)), "there")


def main():
    made = parser(__doc__)
    made.add_argument("--model", default="echo", help="answers text with the same text (%(default)s)")
    made.add_argument("--other", default="scribe", help="another model (%(default)s)")
    groups = ("make_", "there_", "nowhere_", "unmake_", "unmade_")
    names = [name for name in vars(Scenario) if name.startswith(groups)]
    return play(made.parse_args(), Scenario, names)


if __name__ == "__main__":
    sys.exit(main())
