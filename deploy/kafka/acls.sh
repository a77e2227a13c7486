#!/usr/bin/env bash
# Grant levelsync's Kafka user the rights that it needs, and no others. It may run as often as you like.
#
#   deploy/kafka/acls.sh BROKER PRINCIPAL [GROUP]
#   deploy/kafka/acls.sh broker:9092 User:levelsync levelsync
#
# KAFKA_ACLS is Kafka's own tool, kafka-acls.sh by default, and KAFKA_ACLS_OPTIONS more options for it, such as
# "--command-config admin.properties". GROUP is LEVELSYNC_KAFKA_GROUP_ID. Create the topics yourself, see docs/connecting.md,
# and set LEVELSYNC_KAFKA_CREATE_TOPICS=false: creating topics is no right of this user.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
broker=$1 principal=$2 group=${3:-levelsync}

allow() {
    # shellcheck disable=SC2086 - options and the tool's own words are several
    ${KAFKA_ACLS:-kafka-acls.sh} --bootstrap-server "$broker" ${KAFKA_ACLS_OPTIONS:-} \
        --add --allow-principal "$principal" "$@"
}

# What it consumes: events, requests for a run, and the parts of a run.
allow --operation Read --topic progress.leveled-up --topic license.advanced \
    --topic sync.reconcile-requested --topic sync.reconcile-chunks
# What it publishes: the sync. topics; a replayed dead letter goes back to the topic of its event.
allow --operation Write --topic sync. --resource-pattern-type prefixed
# DescribeConfigs is for doctor: a topic of events must not be compacted.
allow --operation Write --operation DescribeConfigs --topic progress.leveled-up --topic license.advanced
# Its consumer groups: the appliers' and the reconciler's.
allow --operation Read --group "$group" --group "$group-reconcile"
