{{/* The controller's own account, as admission sees it. */}}
{{- define "kars.controllerUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:kars-controller
{{- end }}

{{/* Head of a policy. Call with (dict "root" $ "name" "..."). */}}
{{- define "kars.policyHead" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ .name }}
  labels:
    {{- include "kars.labels" (dict "root" .root "component" "admission") | nindent 4 }}
{{- end }}

{{/* Binding of a policy; `resources` narrows it, `params` names its parameters. */}}
{{- define "kars.binding" -}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}-binding
  labels:
    {{- include "kars.labels" (dict "root" .root "component" "admission") | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny, Audit]
  {{- with .params }}
  paramRef:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .namespaces }}
  matchResources:
    namespaceSelector:
      {{- toYaml . | nindent 6 }}
  {{- end }}
{{- end }}

{{/* Conditions: what is older than a policy, or than its settings, and breaks it may still lose its finalizers and go. */}}
{{- define "kars.unlessGoing" -}}
matchConditions:
  - name: stays
    expression: "!has(object.metadata.deletionTimestamp)"
{{- end }}

{{/* Namespaces of sandboxes. */}}
{{- define "kars.sandboxNamespaces" -}}
matchLabels:
  kars.azure.com/isolated: strict
{{- end }}

{{/* CEL: whether a resource is for development only. */}}
{{- define "kars.devOnly" -}}
has(object.metadata.labels) && 'kars.azure.com/dev-only' in object.metadata.labels && object.metadata.labels['kars.azure.com/dev-only'] == 'true'
{{- end }}
