{{/* Names are fixed: one installation serves a cluster, and clients know its objects by name. */}}
{{- define "kars.chart" -}}
{{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Labels of an object. Call with (dict "root" $ "component" "..."). */}}
{{- define "kars.labels" -}}
{{- $own := dict
  "app.kubernetes.io/name" "kars"
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/component" .component
  "app.kubernetes.io/part-of" "kars"
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (include "kars.chart" .root)
-}}
{{- toYaml (mergeOverwrite (deepCopy .root.Values.commonLabels) $own) }}
{{- end }}

{{/* Labels that selectors use; they never change, because selectors cannot. */}}
{{- define "kars.selector" -}}
app.kubernetes.io/name: kars
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* Image reference. Call with (dict "root" $ "image" .Values.x.image "tag" "default tag"). */}}
{{- define "kars.image" -}}
{{- $registry := .image.registry | default .root.Values.global.imageRegistry -}}
{{- $repository := .image.repository -}}
{{- if $registry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" $registry) (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "") -}}
{{- end -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $repository .image.digest }}
{{- else -}}
{{ printf "%s:%s" $repository (.image.tag | default .tag | default .root.Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{- define "kars.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A value as text: numbers of a values file are floats, and would come out as 3.3e+07. */}}
{{- define "kars.text" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{/* Whether a kind's objects are rendered: true, false, or auto where the cluster serves it. */}}
{{- define "kars.wanted" -}}
{{- if eq (toString .enabled) "auto" -}}
{{- if .root.Capabilities.APIVersions.Has .api }}true{{ end -}}
{{- else if eq (toString .enabled) "true" }}true{{ end -}}
{{- end }}

{{/* Variables of the controller by name, as JSON; controller.env wins. */}}
{{- define "kars.controllerEnv" -}}
{{- $v := .Values -}}
{{- $env := dict
  "INFERENCE_ROUTER_IMAGE" (include "kars.image" (dict "root" . "image" $v.inferenceRouter.image))
  "SANDBOX_IMAGE" (include "kars.image" (dict "root" . "image" $v.sandbox.image))
  "OPENAI_AGENTS_RUNTIME_IMAGE" $v.runtimes.openaiAgents.image
  "MAF_RUNTIME_IMAGE" $v.runtimes.mafPython.image
  "ANTHROPIC_RUNTIME_IMAGE" $v.runtimes.anthropic.image
  "LANGGRAPH_RUNTIME_IMAGE" $v.runtimes.langgraph.image
  "LANGGRAPH_TS_RUNTIME_IMAGE" $v.runtimes.langgraphTs.image
  "PYDANTIC_AI_RUNTIME_IMAGE" $v.runtimes.pydanticAi.image
  "HERMES_RUNTIME_IMAGE" $v.runtimes.hermes.image
  "AZURE_OPENAI_ENDPOINT" $v.inferenceRouter.azure.openai.endpoint
  "FOUNDRY_ENDPOINT" $v.foundry.endpoint
  "FOUNDRY_PROJECT_ENDPOINT" $v.foundry.projectEndpoint
  "FOUNDRY_DEPLOYMENTS" $v.foundry.deployments
  "IMDS_CLIENT_ID" $v.foundry.imdsClientId
  "CONTENT_SAFETY_ENDPOINT" ($v.contentSafety.endpoint | default $v.foundry.endpoint)
  "AZURE_WI_CLIENT_ID" $v.azure.workloadIdentity.clientId
  "KARS_DISABLE_ENTRA_AUTH" (ternary "0" "1" $v.azure.entraAuth.enabled)
  "KARS_GUARD" $v.sandbox.guard.mode
  "KARS_GUARD_IMAGE" $v.sandbox.guard.image
  "KARS_GIT_IMAGE" $v.sandbox.gitImage
  "KARS_SPAWN" (toString $v.sandbox.spawn)
  "KARS_MAX_CHILDREN" (include "kars.text" $v.sandbox.maxChildren)
  "KARS_MAX_GENERATIONS" (include "kars.text" $v.sandbox.maxGenerations)
  "KARS_CONTENT_SAFETY_FLOOR" (ternary $v.admission.contentSafetyFloor.minimum "High" $v.admission.contentSafetyFloor.enabled)
  "KARS_MONITORING_NAMESPACE" $v.sandbox.network.monitoringNamespace
  "KARS_DNS_ADDRESSES" ($v.sandbox.network.dnsAddresses | join ",")
  "KARS_PRIVATE_NETWORKS" ($v.sandbox.network.privateNetworks | join ",")
  "KARS_BLOCKLIST_CONFIG_MAP" $v.sandbox.blocklistConfigMap
  "KARS_TERMINATION_GRACE_SECONDS" (include "kars.text" $v.sandbox.terminationGracePeriodSeconds)
  "ROUTER_REQUESTS" (include "kars.quantities" $v.inferenceRouter.resources.requests)
  "ROUTER_LIMITS" (include "kars.quantities" $v.inferenceRouter.resources.limits)
  "ROUTER_STORAGE" $v.inferenceRouter.storage
  "KARS_CREDENTIALS_SECRET" $v.credentials.secretName
  "KARS_PROVIDER" $v.credentials.provider
  "KARS_DEV_PROFILE" (ternary "true" "" $v.controller.devProfile)
  "BYO_STRICT_MODE" (ternary "1" "" $v.controller.byoStrict)
  "KARS_STRICT_TOOLS" (ternary "1" "" $v.strictTools.enabled)
  "CLUSTER_NAME" $v.meshPeer.clusterName
  "MESH_AUTH_AUDIENCE" $v.mesh.authAudience
  "ISSUER_NETWORKS" ($v.mcp.issuerNetworks | join ",")
  "REQUIRE_SIGNED_ALLOWLIST" (ternary "true" "" $v.egress.requireSigned)
  "REQUIRE_SIGNED_IMAGES" (ternary "true" "" $v.imageSignatures.enabled)
  "KARS_SIGSTORE_TRUSTED_ROOT" (ternary "/etc/kars/sigstore/trusted_root.json" "" (not (empty (or $v.signerPolicy.trustedRoot.configMap $v.signerPolicy.trustedRoot.secret))))
  "KARS_REGISTRY_CONFIG" (ternary "/etc/kars/registry/config.json" "" (not (empty $v.registry.credentialsSecret)))
  "KARS_INSECURE_REGISTRIES" ($v.registry.insecure | join ",")
  "EGRESS_APPROVAL_MAX_TTL_SECONDS" (include "kars.text" $v.egressApproval.maxTtlSeconds)
  "KARS_CONFORMANCE_RUNNER_IMAGE" $v.conformance.image
  "KARS_WATCH_TIMEOUT_SECS" (include "kars.text" $v.controller.watchTimeoutSeconds)
  "LEADER_ELECTION_ENABLED" (toString $v.controller.leaderElection.enabled)
  "LEADER_ELECTION_LEASE_NAME" $v.controller.leaderElection.leaseName
  "CONTROLLER_METRICS_ADDR" "0.0.0.0:9091"
  "RUST_LOG" $v.controller.logLevel
  "ROUTER_ENV" (include "kars.routerEnv" . | trim)
-}}
{{- $all := dict -}}
{{- range $name, $value := $env }}
{{- if $value }}{{ $_ := set $all $name (dict "name" $name "value" $value) }}{{ end }}
{{- end }}
{{- $field := dict "POD_NAMESPACE" "metadata.namespace" "KARS_NAMESPACE" "metadata.namespace" "POD_NAME" "metadata.name" "CONTROLLER_POD_NAME" "metadata.name" -}}
{{- range $name, $path := $field }}
{{- $_ := set $all $name (dict "name" $name "valueFrom" (dict "fieldRef" (dict "fieldPath" $path))) }}
{{- end }}
{{- range $v.controller.extraEnv }}{{ $_ := set $all .name . }}{{ end }}
{{- range $name, $value := $v.controller.env }}
{{- if kindIs "map" $value }}{{ $_ := set $all $name (dict "name" $name "valueFrom" $value.valueFrom) }}
{{- else }}{{ $_ := set $all $name (dict "name" $name "value" $value) }}{{ end }}
{{- end }}
{{- toJson $all }}
{{- end }}

{{/* Quantities as name=value, comma-separated. */}}
{{- define "kars.quantities" -}}
{{- $all := list }}
{{- range $name, $value := . }}{{ $all = append $all (printf "%s=%s" $name (include "kars.text" $value)) }}{{ end }}
{{- join "," $all }}
{{- end }}

{{/* router.settings as NAME=VALUE lines. */}}
{{- define "kars.routerEnv" -}}
{{- range $name, $value := .Values.router.settings }}
{{ $name }}={{ include "kars.text" $value }}
{{- end }}
{{- end }}

{{/* What every container of the chart has. */}}
{{- define "kars.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}
