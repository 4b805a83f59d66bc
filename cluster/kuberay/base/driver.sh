#!/bin/bash
# Runs a command of ray-ns as the driver of a RayJob, and lets KubeRay retry only what a retry can mend.
#
# KubeRay takes a job that FAILED to a new cluster, backoffLimit times, whatever its exit code was. It never retries a
# job that was STOPPED. So a driver that leaves with 2 (your input) or 4 (a damaged file) stops its own job: the same
# command would end the same way on every new cluster.
"$@"
code=$?
if [ "$code" != 2 ] && [ "$code" != 4 ]; then
    exit "$code"
fi
echo "exit code $code: a retry would end the same way, so this job is stopped and not retried. Mend what is said above."
job=$(python -c '
import json, os
print(json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"])
')
ray job stop --no-wait --address "${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}" "$job" && sleep 120
exit "$code" # the job could not be stopped, or did not stop: it is FAILED, and KubeRay retries it
