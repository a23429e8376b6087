package plan

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

const (
	onlyIPv4 = "Services have IPv4 addresses"
	oneZone  = "endpoints are not told apart by where they are"
)

// serviceSections are Services and their endpoints.
var serviceSections = []section{
	fieldsOf[corev1.Service]("Service", full("metadata spec"), harmless("status", "it is observed, not desired")),
	fieldsOf[corev1.ServiceSpec]("Service: spec",
		full("ports"),
		noted("selector", "without one, endpoints are written by hand"),
		except("clusterIP", "None for a headless Service; otherwise immutable, as in Kubernetes", func(_ path, v any) row {
			return ipv6(v.(string))
		}),
		except("clusterIPs", "", func(_ path, v any) row { return ipv6(v.([]string)...) }),
		noted("type", "ClusterIP, NodePort, LoadBalancer and ExternalName"),
		except("externalIPs", "not one of the ranges of Services or pods", func(_ path, v any) row { return ipv6(v.([]string)...) }),
		full("sessionAffinity sessionAffinityConfig"),
		except("loadBalancerIP", "one of the settings' services.loadBalancers, or of the host's own without these", func(_ path, v any) row {
			return ipv6(v.(string))
		}),
		except("loadBalancerSourceRanges", "IPv4", func(_ path, v any) row {
			for _, s := range v.([]string) {
				if p, err := netip.ParsePrefix(strings.TrimSpace(s)); err == nil && !p.Addr().Is4() {
					return row{support: noEffect, note: s + " is not IPv4, and " + onlyIPv4, info: true}
				}
			}
			return row{}
		}),
		full("externalName externalTrafficPolicy internalTrafficPolicy healthCheckNodePort publishNotReadyAddresses"),
		except("ipFamilies", "IPv4", func(_ path, v any) row {
			for _, f := range v.([]corev1.IPFamily) {
				if f != corev1.IPv4Protocol {
					return row{support: refused, note: onlyIPv4 + ", and not " + string(f), hint: "write IPv4, or remove it"}
				}
			}
			return row{}
		}),
		except("ipFamilyPolicy", "SingleStack; PreferDualStack gives IPv4 alone, as in a cluster of one family", func(_ path, v any) row {
			if v == corev1.IPFamilyPolicyRequireDualStack {
				return row{support: refused, note: onlyIPv4 + " alone", hint: "write PreferDualStack, or remove it"}
			}
			return row{}
		}),
		full("allocateLoadBalancerNodePorts"),
		refuse("loadBalancerClass", "no load balancer of another class runs here, so nobody would serve it", "remove it: Fairlead gives the Service its address"),
		harmless("trafficDistribution", oneNode+", so that every endpoint is equally close"),
	),
	fieldsOf[corev1.ServicePort]("Service: ports",
		full("name"),
		except("protocol", "TCP and UDP", noSCTP),
		noted("appProtocol", "told to those who ask for the Service; nothing else follows from it"),
		full("port"),
		noted("targetPort", "a number, or the name of a port of the pod's containers"),
		noted("nodePort", "one of the settings' services.nodePorts"),
	),
	fieldsOf[corev1.SessionAffinityConfig]("Service: session affinity", full("clientIP")),
	fieldsOf[corev1.ClientIPConfig]("Service: session affinity by client", full("timeoutSeconds")),
	fieldsOf[corev1.Endpoints]("Endpoints", full("metadata"), //nolint:staticcheck // it is deprecated, and people have it
		noted("subsets", "those of the Service with the same name, which has no selector")),
	fieldsOf[corev1.EndpointSubset]("Endpoints: subsets", full("addresses notReadyAddresses ports")), //nolint:staticcheck // as above
	fieldsOf[corev1.EndpointAddress]("Endpoints: addresses",
		except("ip", "IPv4", func(_ path, v any) row { return ipv6(v.(string)) }),
		full("hostname nodeName targetRef"),
	),
	fieldsOf[corev1.EndpointPort]("Endpoints: ports", full("name port"), except("protocol", "TCP and UDP", noSCTP), full("appProtocol")),
	fieldsOf[corev1.ObjectReference]("Endpoints: what an address belongs to",
		full("kind namespace name uid"),
		harmless("apiVersion", "the kind is enough"),
		harmless("resourceVersion", "objects in Git have none"),
		harmless("fieldPath", "an address belongs to a pod as a whole"),
	),
	fieldsOf[discoveryv1.EndpointSlice]("EndpointSlice",
		noted("metadata", "the label kubernetes.io/service-name says which Service it is for"),
		except("addressType", "IPv4", func(_ path, v any) row {
			if v != discoveryv1.AddressTypeIPv4 {
				return row{support: refused, note: fmt.Sprintf("%s, and not %s", onlyIPv4, v), hint: "write addressType: IPv4, with such addresses"}
			}
			return row{}
		}),
		full("endpoints ports"),
	),
	fieldsOf[discoveryv1.Endpoint]("EndpointSlice: endpoints",
		noted("addresses", "the first one is used, as by kube-proxy"),
		full("conditions hostname targetRef"),
		without("deprecatedTopology", "Kubernetes does not read it any more", "remove it"),
		full("nodeName"),
		harmless("zone", oneZone),
		harmless("hints", oneZone),
	),
	fieldsOf[discoveryv1.EndpointConditions]("EndpointSlice: conditions", full("ready serving terminating")),
	fieldsOf[discoveryv1.EndpointPort]("EndpointSlice: ports", full("name"), except("protocol", "TCP and UDP", noSCTP), full("port appProtocol")),
}

// ipv6 refuses addresses that are not IPv4.
func ipv6(texts ...string) row {
	for _, s := range texts {
		if a, err := netip.ParseAddr(s); err == nil && !a.Is4() {
			return row{support: refused, note: onlyIPv4 + ", and not " + s, hint: "write an IPv4 address"}
		}
	}
	return row{}
}

// noSCTP refuses the protocol that is not routed.
func noSCTP(_ path, v any) row {
	if v == corev1.ProtocolSCTP {
		return row{support: refused, note: "SCTP is not routed", hint: "use TCP or UDP"}
	}
	return row{}
}
