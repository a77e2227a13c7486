{{- define "levelsync.name" -}}
{{- if contains "levelsync" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-levelsync" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "levelsync.selector" -}}
app.kubernetes.io/name: levelsync
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "levelsync.labels" -}}
{{ include "levelsync.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "levelsync.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "levelsync.name" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "levelsync.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{- define "levelsync.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "levelsync.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "levelsync.mounts" -}}
- {name: secrets, mountPath: /etc/levelsync/secrets, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .Values.secrets.tls }}
- {name: tls, mountPath: /etc/levelsync/tls, readOnly: true}
{{- end }}
{{- end }}

{{- /* Volumes: (list context secretName) */}}
{{- define "levelsync.volumes" -}}
{{- $root := index . 0 -}}
- name: secrets
  secret: {secretName: {{ index . 1 | quote }}, defaultMode: 0440}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- if $root.Values.secrets.tls }}
- name: tls
  secret: {secretName: {{ $root.Values.secrets.tls | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{- define "levelsync.env" -}}
- {name: LEVELSYNC_SECRETS_DIR, value: /etc/levelsync/secrets}
{{- range $name, $value := .Values.config }}
{{- if $value }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "levelsync.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "levelsync.deployment" -}}
{{- $root := index . 0 -}}{{- $part := index . 1 -}}{{- $values := index . 2 -}}{{- $roles := index . 3 -}}{{- $ready := index . 4 -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "levelsync.name" $root }}-{{ $part }}
  labels:
    {{- include "levelsync.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $part }}
spec:
  replicas: {{ $values.replicas }}
  revisionHistoryLimit: 5
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels:
      {{- include "levelsync.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ $part }}
  template:
    metadata:
      labels:
        {{- include "levelsync.labels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ $part }}
        {{- with $root.Values.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
      {{- with $root.Values.podAnnotations }}
      annotations: {{ toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "levelsync.serviceAccount" $root }}
      automountServiceAccountToken: false
      # Otherwise Kubernetes sets variables with addresses of services, and their names begin like our settings.
      enableServiceLinks: false
      # The process ends within 10 seconds of SIGTERM.
      terminationGracePeriodSeconds: 20
      {{- with $root.Values.image.pullSecrets }}
      imagePullSecrets: {{ toYaml . | nindent 8 }}
      {{- end }}
      securityContext: {{ include "levelsync.podSecurity" $root | nindent 8 }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "levelsync.selector" $root | nindent 14 }}
              app.kubernetes.io/component: {{ $part }}
      {{- include "levelsync.placement" $root | nindent 6 }}
      containers:
        - name: levelsync
          image: {{ include "levelsync.image" $root | quote }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [serve, --roles, {{ $roles | quote }}]
          securityContext: {{ include "levelsync.containerSecurity" $root | nindent 12 }}
          env:
            {{- include "levelsync.env" $root | nindent 12 }}
            - {name: LEVELSYNC_HTTP_HOST, value: "0.0.0.0"}
            - {name: LEVELSYNC_HTTP_PORT, value: "8000"}
            - {name: LEVELSYNC_METRICS_PORT, value: {{ $root.Values.metricsPort | quote }}}
            {{- with $values.extraEnv }}{{ toYaml . | nindent 12 }}{{ end }}
          ports:
            - {name: http, containerPort: 8000}
            - {name: metrics, containerPort: {{ $root.Values.metricsPort }}}
          # /livez fails only for a stalled consumer, so an outage of Kafka or PostgreSQL restarts no pod.
          startupProbe:
            httpGet: {path: /livez, port: metrics}
            periodSeconds: 1
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /livez, port: metrics}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          readinessProbe:
            httpGet: {path: {{ $ready }}, port: metrics}
            periodSeconds: 5
            timeoutSeconds: 5
          resources: {{ toYaml $values.resources | nindent 12 }}
          volumeMounts: {{ include "levelsync.mounts" $root | nindent 12 }}
      volumes: {{ include "levelsync.volumes" (list $root $root.Values.secrets.runtime) | nindent 8 }}
{{- end }}
