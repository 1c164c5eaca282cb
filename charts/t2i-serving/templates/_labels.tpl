{{/* Labels that select: without versions, so that an upgrade may change the rest. Call with (dict "root" $ "component" "operator"). */}}
{{- define "t2i.selectorLabels" -}}
app.kubernetes.io/name: {{ include "t2i.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "t2i.labels" -}}
{{ include "t2i.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: t2i-serving
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}
