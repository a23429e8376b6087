package environment

import (
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

// serviceVariables returns the variables that tell containers of the pod where Services are, as Kubernetes has them: for
// every Service of the pod's namespace with a cluster address NAME_SERVICE_HOST, NAME_SERVICE_PORT and
// NAME_SERVICE_PORT_<name of the port>, and the variables of Docker's links. A pod with enableServiceLinks: false has none.
func serviceVariables(pod *plan.Pod, services []*plan.Service) map[string]string {
	out := map[string]string{}
	if l := pod.Spec.EnableServiceLinks; l != nil && !*l {
		return out
	}
	for _, s := range services {
		ip := s.Spec.ClusterIP
		if s.Namespace != pod.Namespace || ip == "" || ip == corev1.ClusterIPNone || s.Spec.Type == corev1.ServiceTypeExternalName || len(s.Spec.Ports) == 0 {
			continue
		}
		name := variableName(s.Name)
		out[name+"_SERVICE_HOST"] = ip
		out[name+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
		for i := range s.Spec.Ports {
			p := &s.Spec.Ports[i]
			port := strconv.Itoa(int(p.Port))
			if p.Name != "" {
				out[name+"_SERVICE_PORT_"+variableName(p.Name)] = port
			}
			protocol := string(p.Protocol)
			if protocol == "" {
				protocol = string(corev1.ProtocolTCP)
			}
			url := strings.ToLower(protocol) + "://" + net.JoinHostPort(ip, port)
			if i == 0 {
				out[name+"_PORT"] = url
			}
			link := name + "_PORT_" + port + "_" + strings.ToUpper(protocol)
			out[link] = url
			out[link+"_PROTO"] = strings.ToLower(protocol)
			out[link+"_PORT"] = port
			out[link+"_ADDR"] = ip
		}
	}
	return out
}

// variableName makes a variable's name of a Service's or a port's.
func variableName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }
