// Package az holds no code: its tests run the real az, the azure-cli of Debian, against a server of ours.
//
// Each test is a story of its own resource group, told in the commands that a person types; what is checked is what az
// prints with -o json. The stories run beside each other against one server, since an az takes a second or two to
// start and waits five between two looks at an operation.
//
// az is unmodified. Debian's package (2.45.0) has slips of its own, and what they break cannot be shown with it:
//
//   - Every command about virtual machines asks for a version of the compute SDK that is not there. `kluis cloud az`
//     gives Python a start-up file that mends it, and signs az in; that is what everybody does, and the tests too.
//   - The data-plane half of `az keyvault` (keys, secrets) cannot be imported at all. test/clients shows keys and secrets
//     with the SDKs.
//   - Commands about networks want a version of the network SDK that is not there: of virtual networks and network interfaces
//     `az resource` is what works.
//   - `az backup protection disable --retain-recovery-points-as-per-policy` names a value that its SDK does not have, and ends
//     before it sends anything.
package az
