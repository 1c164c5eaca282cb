{{/* The value of app.kubernetes.io/name. Fixed: the NetworkPolicies of pools know the operator's pods by it. */}}
{{- define "t2i.name" -}}
t2i-serving
{{- end }}

{{/* As `helm create` makes it: release and chart, or only the release if it already holds the chart's name. 52 characters
leave room for suffixes. */}}
{{- define "t2i.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "t2i.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "t2i.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Objects without a namespace carry the release's: two releases in two namespaces must not fight over them. */}}
{{- define "t2i.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "t2i.fullname" .) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "t2i.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (printf "%s-operator" (include "t2i.fullname" .)) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name: name the existing ServiceAccount when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}
