package planview

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// service writes what becomes of the way to a Service: where it is reached, what is behind it, and what moves.
func (v *view) service(c plan.ServiceChange) {
	ends := c.ClusterIP == "" && len(c.Elsewhere) == 0
	switch way := serviceWay(c); {
	case c.Type == corev1.ServiceTypeExternalName && !ends:
		v.printf("      %s\n", Clean("stands for the "+strings.Join(c.Elsewhere, ", ")))
	case !ends:
		v.printf("      %s → %s\n", Clean(way), Clean(behind(c)))
	}
	if len(c.Moves) > 0 {
		word := "moves: "
		if ends {
			word = "gives up: "
		}
		moves := make([]string, len(c.Moves))
		for i, m := range c.Moves {
			moves[i] = m
			if ends {
				moves[i] = strings.TrimSuffix(m, " → none")
			}
		}
		v.printf("      %s\n", v.paint(Yellow, Clean(word+strings.Join(moves, ", "))))
	}
	if len(c.Gains) > 0 && len(c.Gains) < len(c.Selects) {
		v.printf("      %s\n", v.paint(Green, Clean("+ "+podsOf(c.Gains))))
	}
	if len(c.Loses) > 0 {
		v.printf("      %s\n", v.paint(Red, Clean("- "+podsOf(c.Loses))))
	}
	if len(c.Registered) > 0 {
		v.printf("      registered in Consul as %s\n", Clean(strings.Join(c.Registered, ", ")))
	}
}

// serviceWay says where a Service is reached: "at 10.80.3.7:80, node port 30080".
func serviceWay(c plan.ServiceChange) string {
	var parts []string
	one := len(c.Ports) == 1
	switch {
	case c.ClusterIP == corev1.ClusterIPNone:
		parts = append(parts, "headless")
	case one:
		parts = append(parts, "at "+c.ClusterIP+":"+port(c.Ports[0].Port, c.Ports[0].Protocol))
	default:
		parts = append(parts, "at "+c.ClusterIP)
	}
	for _, p := range c.Ports {
		var words []string
		if !one {
			if p.Name != "" {
				words = append(words, p.Name)
			}
			words = append(words, port(p.Port, p.Protocol))
		}
		if p.NodePort != 0 {
			words = append(words, fmt.Sprintf("node port %d", p.NodePort))
		}
		if len(words) > 0 {
			parts = append(parts, strings.Join(words, " "))
		}
	}
	return strings.Join(append(parts, c.Elsewhere...), ", ")
}

// behind says what a Service leads to: "pods of Deployment shop/web, port 8080".
func behind(c plan.ServiceChange) string {
	switch {
	case c.ByHand:
		return "endpoints that are written by hand"
	case len(c.Selects) == 0:
		return "no pods of this application"
	}
	s := podsOf(c.Selects)
	var ports []string
	for _, p := range c.Ports {
		text := p.Target
		if p.TargetPort != 0 {
			text = fmt.Sprint(p.TargetPort)
		}
		if text != "" && !slices.Contains(ports, text) {
			ports = append(ports, text)
		}
	}
	switch len(ports) {
	case 0:
		return s
	case 1:
		return s + ", port " + ports[0]
	}
	return s + ", ports " + strings.Join(ports, " and ")
}

// port is a number, with its protocol unless that is TCP.
func port(n int32, protocol corev1.Protocol) string {
	if protocol == "" || protocol == corev1.ProtocolTCP {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d/%s", n, protocol)
}

// podsOf names pods by their workloads: "pods of Deployment shop/web, Pod shop/one".
func podsOf(list []object.Ref) string {
	text := make([]string, len(list))
	for i, r := range list {
		text[i] = r.String()
		if r.Kind != "Pod" {
			text[i] = "pods of " + text[i]
		}
	}
	return strings.Join(text, ", ")
}

// services writes the Services whose endpoints change although nothing was written for them.
func (v *view) services(p plan.Plan) {
	for _, c := range p.Services {
		if slices.ContainsFunc(p.Changes, func(x plan.Change) bool { return x.Ref == c.Ref }) {
			continue
		}
		v.printf("  • %s stays as it is, what is behind it does not\n", Clean(c.Ref.String()))
		v.service(c)
		v.printf("\n")
	}
}
