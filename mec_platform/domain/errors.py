"""The root of errors that a person can mend: the command line shows their message as one line, without a traceback.

MendableError
+-- rpc.endpoints.AddressError, registry.errors.LogUnavailable, domain.locality.LocalityError
+-- data_plane.port.DataPlaneError
+-- control_plane.policy_table.PolicyError, scenario.scenario.ScenarioError
+-- content_store: EntryInUse, LimitError
+-- identity: CertificateError, IdentityError, JoinTokenError
+-- private_files.PrivateFileError, tls.TlsError, credential_files.CredentialFileError, app_seeds.SeedError
+-- sdk.errors.MecError
+-- split_inference: JoinError, PackageError, ArtefactError (node.artefact_check), ChatTemplateError
+-- cli.requests.CliError
+-- compiler.errors.CompilerError
"""


class MendableError(Exception):
    """Something that its reader can put right; the message says what and how."""
