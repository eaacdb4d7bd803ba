{{- /* The spec that Istio merges into a pod. Takes a dict: root, and gateway (whether the proxy is a container there). */ -}}
{{- define "extauthz.injection" -}}
spec:
  initContainers:
  - name: extauthz
    image: {{ include "extauthz.image" .root | quote }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    restartPolicy: Always
    args:
    - serve
    env:
    - name: EXTAUTHZ_POLICY
      value: /etc/extauthz/policies
    - name: EXTAUTHZ_LISTEN
      value: unix:/run/extauthz/extauthz.sock
    - name: EXTAUTHZ_LISTEN_MODE
      value: "0660"
    - name: EXTAUTHZ_ADMIN
      value: 0.0.0.0:9192
    - name: EXTAUTHZ_DRAIN
      value: {{ .root.Values.sidecarDrainSeconds | toJson | quote }}
    {{- include "extauthz.options" .root | nindent 4 }}
    ports:
    - name: extauthz-admin
      containerPort: 9192
    startupProbe:
      exec:
        command:
        - /opt/extauthz/bin/extauthz
        - healthcheck
      periodSeconds: 1
      timeoutSeconds: 5
      failureThreshold: 60
    livenessProbe:
      exec:
        command:
        - /opt/extauthz/bin/extauthz
        - healthcheck
      periodSeconds: 30
      timeoutSeconds: 10
      failureThreshold: 3
    resources:
      {{- toYaml .root.Values.sidecarResources | nindent 6 }}
    securityContext:
      runAsNonRoot: true
      runAsUser: 65532
      runAsGroup: 1337
      seccompProfile:
        type: RuntimeDefault
      {{- include "extauthz.containerSecurity" .root | nindent 6 }}
    volumeMounts:
    - name: extauthz-policies
      mountPath: /etc/extauthz/policies
      readOnly: true
    - name: extauthz-socket
      mountPath: /run/extauthz
  {{- if .gateway }}
  containers:
  - name: istio-proxy
    volumeMounts:
    - name: extauthz-socket
      mountPath: /run/extauthz
  {{- end }}
  volumes:
  - name: extauthz-policies
    configMap:
      name: {{ include "extauthz.configMap" .root }}
  - name: extauthz-socket
    emptyDir:
      medium: Memory
      sizeLimit: 1Mi
{{- end -}}
